"""All levels and maps in one pass: the same coordinates and pairs as one map at a time, in few operations."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.harness.contract.stage import SparseBackend
from pretrain_bench.methods.flops import flops
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse import backend
from pretrain_bench.methods.sparse.backend import BACKENDS, sparse_backend
from pretrain_bench.methods.sparse.pyramid import LEVELS, PyramidManager
from pretrain_bench.methods.sparse.tensor import CoordinateManager, batched_coordinates
from pretrain_bench.methods.training import numerics

SEED = 29


def clouds(low: int, high: int, count: int = 1500, items: int = 3) -> torch.Tensor:
    """(N, 4) distinct coordinates of `items` clouds, in random order."""
    rng = np.random.default_rng(SEED)
    distinct = [np.unique(rng.integers(low, high, (count, 3)), axis=0) for _ in range(items)]
    return batched_coordinates([torch.from_numpy(rng.permutation(c)) for c in distinct])


@pytest.mark.parametrize(("low", "high"), [(-40, 37), (0, 4), (-32_766, 32_767), (-9, -8)])
def test_levels_and_maps_are_those_of_one_at_a_time(low: int, high: int) -> None:
    coordinates = clouds(low, high)
    one_by_one, at_once = CoordinateManager(), PyramidManager()
    one_by_one.insert(1, coordinates)
    at_once.insert(1, coordinates)
    wanted = [(1, 1, 3)]
    for level in range(LEVELS - 1):
        fine, coarse = 1 << level, 2 << level
        assert one_by_one.down(fine, 2) == at_once.down(fine, 2) == coarse
        assert torch.equal(one_by_one.coordinates(coarse), at_once.coordinates(coarse))
        wanted += [(fine, coarse, 2), (coarse, coarse, 3)]
    for key in wanted:
        expected, actual = one_by_one.kernel_map(*key, 1), at_once.kernel_map(*key, 1)
        ins, outs = len(one_by_one.coordinates(key[0])), len(one_by_one.coordinates(key[1]))
        assert torch.equal(actual.partners(outs, ins), expected.partners(outs, ins))
        assert torch.equal(actual.transposed().partners(ins, outs), expected.transposed().partners(ins, outs))
        assert (actual.pairs, tuple(actual.starts)) == (expected.pairs, tuple(expected.starts))
        for k, (a, b) in enumerate(zip(actual.starts, actual.starts[1:], strict=False)):
            pairs = [{*zip(m.in_rows[a:b].tolist(), m.out_rows[a:b].tolist(), strict=True)} for m in (actual, expected)]
            assert pairs[0] == pairs[1], (key, k)
        masks = actual.masks[actual.order]
        assert torch.equal(masks, actual.masks.sort(stable=True).values)
        assert torch.equal(actual.masks, sum(((actual.table[k] >= 0).int() << k) for k in range(len(actual.table))))


def test_other_kernels_and_strides_are_left_to_the_plain_manager() -> None:
    coordinates = clouds(-6, 6, 200)
    one_by_one, at_once = CoordinateManager(), PyramidManager()
    for manager in (one_by_one, at_once):
        manager.insert(1, coordinates)
        manager.down(1, 4)
    for key in ((1, 1, 5, 1), (1, 1, 3, 2), (1, 4, 4, 1)):
        rows = len(one_by_one.coordinates(key[1]))
        expected, actual = (m.kernel_map(*key).partners(rows, len(coordinates)) for m in (one_by_one, at_once))
        assert torch.equal(actual, expected)


def test_few_operations_and_two_synchronisations(monkeypatch: pytest.MonkeyPatch) -> None:
    coordinates = clouds(-20, 20)
    PyramidManager().insert(1, coordinates)  # constants are created once
    reads = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self.shape) or plain(self))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        PyramidManager().insert(1, coordinates)
    names = [event.name for event in profiled.events() if event.cpu_parent is None and event.name.startswith("aten::")]
    print(len(names), "operations")
    assert len(names) <= 150
    assert len(reads) == 2
    waits = {
        "aten::_local_scalar_dense",
        "aten::item",
        "aten::nonzero",
        "aten::unique",
        "aten::_unique2",
        "aten::masked_select",
    }
    assert not waits & {event.name for event in profiled.events()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: torch.cat([c, c[:2]]), "2 of .* coordinates are duplicates"),
        (
            lambda c: c.index_put((torch.tensor(3), torch.tensor(2)), torch.tensor(32_767, dtype=c.dtype)),
            "supports -32766 to 32766",
        ),
        (
            lambda c: c.index_put((torch.tensor(3), torch.tensor(0)), torch.tensor(4096, dtype=c.dtype)),
            "supports 0 to 4095",
        ),
    ],
)
def test_what_it_cannot_number_is_refused(change, message: str) -> None:
    coordinates = clouds(-6, 6, 100)
    manager = PyramidManager()
    with pytest.raises(ValueError, match=message):
        manager.insert(1, change(coordinates))
    manager.insert(1, coordinates)
    with pytest.raises(ValueError, match="already has"):
        manager.insert(1, coordinates)


def test_the_network_gives_the_same_on_both_backends() -> None:
    coordinates, results = clouds(-12, 12, 400, 2), []
    features = torch.randn(len(coordinates), 3, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    for name in ("torch", "triton"):
        torch.manual_seed(SEED)
        network = Res16UNet34C(4, NetworkSettings(width=0.125), 0.05, name).double()
        flops.sparse_forward = 0
        out = network(sparse_backend(name).SparseTensor(features, coordinates)).F
        (out * torch.linspace(-1, 1, 4)).sum().backward()
        results.append((out, torch.cat([p.grad.flatten() for p in network.parameters()]), flops.sparse_forward))
    (one, gradient, count), (other, other_gradient, other_count) = results
    assert torch.allclose(one, other, atol=1e-10) and torch.allclose(gradient, other_gradient, atol=1e-8)
    assert count == other_count > 0


def test_a_network_on_triton_is_in_the_numerics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_args(SparseBackend) == BACKENDS
    monkeypatch.setattr(numerics, "IN_USE", {})
    monkeypatch.setattr(backend, "IN_USE", numerics.IN_USE)
    sparse_backend("torch")
    assert "sparse_products" not in numerics.numerics()
    sparse_backend("triton")
    assert numerics.numerics()["sparse_products"].startswith(("torch", "triton "))
