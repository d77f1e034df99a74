"""Sharing of blocks of rows among threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pretrain_bench.methods.sparse import workers
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution
from pretrain_bench.methods.sparse.tensor import SparseTensor


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_group_is_done_once_and_the_number_of_threads_is_put_back(three_threads: None) -> None:
    done: list[int] = []
    for groups in (1, 2, 7):
        done.clear()
        workers.share(done.append, groups)
        assert sorted(done) == list(range(groups))
        assert torch.get_num_threads() == 3


def test_each_thread_computes_alone(three_threads: None) -> None:
    seen: dict[str, int] = {}
    barrier = threading.Barrier(3, timeout=60)

    def work(group: int) -> None:
        barrier.wait()
        seen[threading.current_thread().name] = torch.get_num_threads()
        assert not torch.is_grad_enabled()

    workers.share(work, 3)
    assert len(seen) == 3 and set(seen.values()) == {1}


def test_an_error_in_any_thread_is_raised_after_all_have_ended(three_threads: None) -> None:
    def work(group: int) -> None:
        if group == 4:
            raise MemoryError("group 4")

    with pytest.raises(MemoryError, match="group 4"):
        workers.share(work, 6)
    assert torch.get_num_threads() == 3


def test_groups_are_consecutive_and_lose_nothing() -> None:
    for count in (0, 1, 5, 13):
        groups = workers.grouped(list(range(count)), 4)
        assert [i for g in groups for i in g] == list(range(count))
        assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_shared_convolution_equals_the_unshared_one_and_repeats_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    rng = np.random.default_rng(5)
    cells = np.unique(rng.integers(-12, 12, (4000, 3)), axis=0)
    coordinates = torch.from_numpy(np.concatenate([np.zeros((len(cells), 1)), cells], 1)).int()
    conv = MinkowskiConvolution(16, 24, kernel_size=3).double()
    features = torch.from_numpy(rng.normal(size=(len(cells), 16)))

    def run() -> list[torch.Tensor]:
        x = features.clone().requires_grad_()
        conv.kernel.grad = None
        out = conv(SparseTensor(x, coordinates)).F
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
        assert x.grad is not None and conv.kernel.grad is not None
        return [out.detach(), x.grad, conv.kernel.grad.clone()]

    monkeypatch.setattr("pretrain_bench.methods.sparse.conv.PADDING_ALLOWED", -1)
    monkeypatch.setattr(workers, "SHARED_MULTIPLY_ADDS", 1 << 60)
    alone = run()
    monkeypatch.setattr(workers, "SHARED_MULTIPLY_ADDS", 0)
    groups = []
    original = workers.share
    monkeypatch.setattr(
        "pretrain_bench.methods.sparse.conv.share", lambda work, count: (groups.append(count), original(work, count))
    )
    first, second = run(), run()
    assert set(groups) == {6}
    for a, b, c in zip(alone, first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.equal(b, c)
