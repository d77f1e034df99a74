"""`make verify-gpu-stages` compares stages correctly, and its verdict can fail."""

from __future__ import annotations

from pretrain_bench.harness.contract.events import Step
from tests.verification.gpu_stages import BOUNDS, compare, misses


def steps(losses: list[float], norm: float = 2.0, seconds: float = 0.5) -> list[Step]:
    return [
        Step(step=i + 1, loss=v, learning_rate=0.1, gradient_norm=norm, seconds=seconds, data_seconds=0.0)
        for i, v in enumerate(losses)
    ]


def test_differences_by_hand() -> None:
    found = compare(steps([2.02, 1, 1, 1, 1, 9], norm=2.2, seconds=0.1), steps([2.0, 1, 1, 1, 1, 1]))
    assert abs(found["first_loss"] - 0.01) < 1e-9 and abs(found["first_gradient_norm"] - 0.1) < 1e-9
    assert abs(found["early_loss"] - 0.02 / 6) < 1e-9, "of the first five steps only"
    assert (found["gpu_step_seconds"], found["cpu_step_seconds"]) == (0.1, 0.5)


def test_the_verdict_names_missed_bounds() -> None:
    good = {"same_input": True, "gpu_seconds": 3.0, "gpu_mib": 100.0, **dict.fromkeys(BOUNDS, 1e-6)}
    assert misses({"csc/pairs": good}) == []
    assert misses({"csc/pairs": {**good, "first_loss": 0.01}}) == ["csc/pairs: first_loss is 0.01"]
    assert misses({"csc/pairs": {**good, "first_loss": float("nan")}}), "a NaN is a failure"
    early = {**good, "early_loss": 0.3}
    assert misses({"scratch -> sunrgbd-det": {**early, "early_loss_nudged": 0.09}}), (
        "more than three times the CPU's own"
    )
    assert misses({"scratch -> sunrgbd-det": {**early, "early_loss_nudged": 0.11}}) == []
    assert misses({"scratch -> sunrgbd-det": {**good, "first_loss": 0.01, "early_loss_nudged": 9.0}}), (
        "for later steps only"
    )
    assert not misses({"ours/points": {**good, "same_input": False, "first_loss": 0.01}}), "from weights made elsewhere"
    assert misses({"csc/pairs": {**good, "gpu_seconds": 0.0}}) == ["csc/pairs: gpu_seconds is 0.0"]
