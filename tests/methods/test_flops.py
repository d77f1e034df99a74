"""The FLOP count of a training step, against closed forms and torch's own counter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.methods.flops import dense_layers_counted, flops
from pretrain_bench.methods.sparse import conv
from tests.methods.stages import METHODS, nano_stages, open_stage, small_recordings, training_of


@pytest.fixture(scope="module")
def source(cache: Path) -> PreparedDataset:
    return small_recordings(cache)


def counted(run: object) -> int:
    before = flops.training
    with dense_layers_counted():
        run()  # type: ignore[operator]
    return flops.training - before


def test_layers_count_their_products_and_those_of_their_backward_pass() -> None:
    linear, x = nn.Linear(4, 3), torch.ones(8, 4)
    assert counted(lambda: linear(x)) == 2 * (2 * 8 * 4 * 3), "forward and the weights"
    assert counted(lambda: linear(x.clone().requires_grad_())) == 3 * (2 * 8 * 4 * 3), "and the input"
    with torch.no_grad():
        assert counted(lambda: linear(x)) == 2 * 8 * 4 * 3
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    assert counted(lambda: conv(torch.ones(2, 4, 8, 8))) == 2 * (2 * 2 * 6 * 4 * 4 * 2 * 9)
    assert counted(lambda: nn.ReLU()(x)) == 0


def test_nothing_is_counted_outside() -> None:
    before = flops.training
    nn.Linear(4, 3)(torch.ones(8, 4))
    assert flops.training == before


def in_place_product(total: Any, left: Any, right: Any, **_: object) -> int:
    """FLOPs of `total.addmm_(left, right)` from the shapes; torch's counter omits it."""
    return int(mm_flop(left, right))


@pytest.mark.parametrize("method", [m if m == "ours" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_a_step_agrees_with_torchs_counter(
    method: str, source: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's counter also includes diagnostics, and products that a loss recomputes to save memory."""
    monkeypatch.setattr(conv, "PADDING_ALLOWED", 0)  # padded products multiply zeros, which the project does not count
    parents: dict[str, Path] = {}
    for planned in nano_stages(method, source):
        context = open_stage(planned, tmp_path / planned.spec.stage, parents)
        training = training_of(context)
        batch = training.make_batch(0)
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place_product}) as counter:
            ours = counted(partial(training.run_step, 0, batch))
        assert 0.9 * counter.get_total_flops() <= ours <= counter.get_total_flops(), planned.title
        training.save()
        parents[planned.spec.stage] = context.artifacts
