"""Schedules, the loop, exact resumption, and reasons for ending a training early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay, SgdSettings
from pretrain_bench.harness.contract.events import read_events
from pretrain_bench.harness.contract.stage import Limits, StageSpec
from pretrain_bench.methods.context import CANCEL, FINISH, StageContext, stream_seed
from pretrain_bench.methods.training import loop
from pretrain_bench.methods.training.checkpoint import load_state
from pretrain_bench.methods.training.loop import (
    Cancelled,
    Diverged,
    NothingToLearn,
    StepResult,
    Training,
    TrainingState,
    batch_indices,
    train,
)
from pretrain_bench.methods.training.optim import exponential, polynomial, sgd

LIMITS = Limits(budget="b", budget_version=1, currency="optimizer_steps", amount=1e9, schedule_horizon="recipe")


def test_exponential_decay_per_thousand_steps() -> None:
    rate = exponential(0.1, ExponentialDecay(), 20_000, 20_000)
    assert rate(0) == rate(999) == 0.1 and np.isclose(rate(1000), 0.099)
    assert np.isclose(rate(20_000) / 0.1, 0.818, atol=5e-4)


def test_a_schedule_can_be_stretched_to_the_budget() -> None:
    short = exponential(0.1, ExponentialDecay(), 20_000, 200)
    assert np.isclose(short(200) / 0.1, 0.818, atol=5e-4) and short(9) == 0.1 and np.isclose(short(10), 0.099)
    assert np.isclose(polynomial(1.0, 0.9, 20_000)(10_000), 0.536, atol=5e-4)
    assert np.isclose(polynomial(1.0, 0.9, 100)(50), 0.5**0.9, atol=0.01)


def context(root: Path, seed: int = 0, limits: Limits = LIMITS) -> StageContext:
    spec = StageSpec.model_validate(
        {
            "kind": "pretrain",
            "method": "ours",
            "stage": "points",
            "seed": seed,
            "profile": "p",
            "profile_version": 1,
            "network": {},
            "limits": limits,
            "threads": 1,
            "sparse_backend": "torch",
            "device": "cpu",
            "code_sha256": "0" * 64,
        }
    )
    (root / "in").mkdir(parents=True, exist_ok=True)
    (root / "in/stage.json").write_text(json.dumps(spec.model_dump(mode="json")))
    return StageContext.open(root)


def job(
    where: StageContext,
    steps: int = 12,
    stop_at: int | None = None,
    meaning: str = CANCEL,
    spoil: int | None = None,
    zero_below: int = 0,
):
    """A small real training: linear layers with batch norm learn noise drawn per step."""
    torch.manual_seed(where.seed("weights"))
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimiser = sgd(net.parameters(), SgdSettings(learning_rate=0.05))
    seen: list[int] = []

    def make_batch(number: int) -> torch.Tensor:
        return torch.from_numpy(where.rng("data", number).normal(size=(8, 4)).astype(np.float32))

    def step(number: int, x: torch.Tensor) -> StepResult:
        seen.append(number)
        loss = (net(x) - x.sum(1, keepdim=True)).pow(2).mean()
        if spoil == number:
            loss = loss * float("nan")
        if number < zero_below:
            loss = loss * 0.0
        loss.backward()
        if stop_at == number:
            where.stop = meaning
        return StepResult(float(loss.detach()), {"samples": 8, "points": 3}, {})

    def after(state: TrainingState) -> None:
        state.extra["sum"] = state.extra.get("sum", 0) + state.step

    schedule = exponential(0.05, ExponentialDecay(every_steps=3), steps, steps)
    state = train(
        where, Training({"net": net}, optimiser, schedule, where.run_length(steps, 1), make_batch, step, after)
    )
    return state, net.state_dict(), seen


STEP_FLOPS = 2 * 8 * (2 * 4 * 3 + 3 * 3 * 1)
"""FLOPs per step of `job`: 8 rows through weights of 4 x 3 and 3 x 1; the backward pass costs once the first and twice the second."""


def flop_limits(steps: float, uniformity: str) -> Limits:
    """Limits of as many FLOPs as `steps` steps of `job` take."""
    return LIMITS.model_copy(
        update={
            "currency": Currency.flops, "amount": steps * STEP_FLOPS, "uniformity": uniformity, "schedule_horizon": "budget",
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "uniformity", "taken"),
    [(5.5, "exactly", 6), (5.5, "at_most", 6), (20, "at_most", 12), (20, "exactly", 20)],
)
def test_flops_end_a_run_at_the_step_that_reaches_them(
    tmp_path: Path, steps: float, uniformity: str, taken: int
) -> None:
    state, _, seen = job(context(tmp_path, limits=flop_limits(steps, uniformity)))
    assert len(seen) == state.ledger.optimizer_steps == taken and state.ledger.flops == taken * STEP_FLOPS
    events = [e for e in read_events(tmp_path / "out/events.jsonl") if e.event == "step"]
    assert events[-1].step == taken and events[-1].done == 1.0
    # The rate falls by 1 % at each third of the recipe's 12 places; the run passes through the whole schedule.
    assert np.isclose(events[-1].learning_rate, 0.05 * 0.99**3) and events[0].learning_rate == 0.05


def test_a_run_by_flops_resumes_to_the_same_bits(tmp_path: Path) -> None:
    limits = flop_limits(9, "exactly")
    _, expected, _ = job(context(tmp_path / "whole", limits=limits))
    with pytest.raises(Cancelled, match="after step 4"):
        job(context(tmp_path / "cut", limits=limits), stop_at=3)
    state, resumed, seen = job(context(tmp_path / "cut", limits=limits))
    assert seen == [4, 5, 6, 7, 8] and state.ledger.flops == 9 * STEP_FLOPS
    assert all(torch.equal(expected[k], resumed[k]) for k in expected)


def test_gpu_seconds_end_a_run_whatever_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = flop_limits(1, "exactly").model_copy(update={"currency": Currency.gpu_seconds, "amount": 1.0})
    seconds = iter(np.arange(0.25, 9, 0.25))
    monkeypatch.setattr(loop.Clock, "_gpu", lambda clock: {"gpu_seconds": float(next(seconds))})
    state, _, seen = job(context(tmp_path, limits=limits))
    assert seen == [0, 1, 2, 3] and state.step == 4


def test_the_last_step_of_a_stopped_run_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MAX_STEP_EVENTS", 2)
    job(context(tmp_path), stop_at=7, meaning=FINISH)
    assert [e.step for e in read_events(tmp_path / "out/events.jsonl") if e.event == "step"] == [6, 8]


@pytest.mark.parametrize("every", [0.0, 1e9])
@pytest.mark.parametrize("stop_at", [0, 5, 10])
def test_resuming_gives_the_same_bits_ledger_and_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, every: float
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", every)
    whole, expected, _ = job(context(tmp_path / "whole"))
    with pytest.raises(Cancelled, match=f"after step {stop_at + 1} of 12"):
        job(context(tmp_path / "cut"), stop_at=stop_at)
    state, found, seen = job(context(tmp_path / "cut"))
    assert seen == list(range(stop_at + 1, 12)), "no step is taken twice"
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert (state.ledger.optimizer_steps, state.ledger.samples, state.ledger.points) == (12, 96, 36)
    assert state.extra == whole.extra == {"sum": 78, loop.COLLAPSED: {}}
    logged = [e.step for e in read_events(tmp_path / "cut/out/events.jsonl") if e.event == "step"]
    assert logged == list(range(1, 13))


def test_a_kill_between_checkpoints_replays_from_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected, _ = job(context(tmp_path / "whole"))

    class Killed(BaseException):
        pass

    def kill(state: object, path: Path) -> None:
        raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Cancelled):
        job(context(tmp_path / "cut"), stop_at=3)
    monkeypatch.setattr(loop, "save_state", kill)
    with pytest.raises(Killed):
        job(context(tmp_path / "cut"))
    monkeypatch.undo()
    _, found, seen = job(context(tmp_path / "cut"))
    assert seen[0] == 4 and all(torch.equal(expected[k], found[k]) for k in expected)
    logged = [e.step for e in read_events(tmp_path / "cut/out/events.jsonl") if e.event == "step"]
    assert logged == list(range(1, 13)), "what came after the checkpoint is not told twice"


def test_a_damaged_checkpoint_means_starting_again(tmp_path: Path) -> None:
    _, expected, _ = job(context(tmp_path / "whole"))
    with pytest.raises(Cancelled):
        job(context(tmp_path / "cut"), stop_at=3)
    checkpoint = tmp_path / "cut/out/checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert load_state(checkpoint) is None
    _, found, seen = job(context(tmp_path / "cut"))
    assert seen[0] == 0 and all(torch.equal(expected[k], found[k]) for k in expected)


def test_the_soft_limit_keeps_what_was_learnt(tmp_path: Path) -> None:
    state, _, seen = job(context(tmp_path), stop_at=4, meaning=FINISH)
    assert state.step == 5 and len(seen) == 5


def test_divergence_ends_the_run_with_its_step(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 4: loss nan"):
        job(context(tmp_path), spoil=3)


def test_a_loss_of_exactly_zero_for_many_steps_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NothingToLearn, match="the loss was exactly 0 in all 12 steps; check that the training scenes have labels"
    ):
        job(context(tmp_path / "all"), zero_below=12)
    job(context(tmp_path / "some"), zero_below=11)
    monkeypatch.setattr(loop, "ZERO_LOSS_STEPS", 8)
    with pytest.raises(NothingToLearn, match="step 8: the loss has been exactly 0 for 8 steps"):
        job(context(tmp_path / "row"), zero_below=11)
    with pytest.raises(Cancelled):
        job(context(tmp_path / "resumed"), zero_below=11, stop_at=4)
    with pytest.raises(NothingToLearn, match="step 8"):
        job(context(tmp_path / "resumed"), zero_below=11)


def test_random_streams_are_apart() -> None:
    seeds = {
        stream_seed(s, stage, c, n) for s in range(3) for stage in ("a", "b") for c in ("x", "y") for n in range(3)
    }
    assert len(seeds) == 36 and all(0 <= s < 2**63 for s in seeds)


def test_every_epoch_is_a_permutation(tmp_path: Path) -> None:
    where = context(tmp_path)
    drawn = [i for step in range(10) for i in batch_indices(where, "order", step, 3, 5)]
    for epoch in range(6):
        assert sorted(drawn[5 * epoch : 5 * epoch + 5]) == list(range(5))
    assert drawn[:5] != drawn[5:10] or drawn[5:10] != drawn[10:15]
    assert drawn[3:6] == list(batch_indices(where, "order", 1, 3, 5))


def test_left_overs_of_a_killed_attempt_are_no_artifacts(tmp_path: Path) -> None:
    where = context(tmp_path)
    (where.artifacts / ".tmpHalf").write_text("half a file")
    assert not list(context(tmp_path).artifacts.iterdir())


def test_loader_workers_change_no_bit_and_count_in_the_ledger(tmp_path: Path) -> None:
    _, expected, _ = job(context(tmp_path / "alone"))
    where = context(tmp_path / "ahead")
    ahead = LIMITS.model_copy(update={"loader_workers": 2})
    where.spec = where.spec.model_copy(update={"limits": ahead})
    with pytest.raises(Cancelled):
        job(where, stop_at=4)
    where.stop = None
    state, found, seen = job(where)
    assert seen == list(range(5, 12)) and state.ledger.optimizer_steps == 12
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_a_stage_does_not_import_torchs_compiler() -> None:
    """The import takes longer than the work of a small stage, and torch's optimizers trigger it unless undecorated."""
    code = (
        "import sys, torch\n"
        "from pretrain_bench.benchmarks.specs.optimisers import AdamSettings, SgdSettings\n"
        "from pretrain_bench.methods import stage\n"
        "from pretrain_bench.methods.training.optim import adam, sgd\n"
        "stage.set_up_torch(type('Spec', (), {'threads': 1, 'device': 'cpu', 'seed': 0})())\n"
        "for make, settings in ((adam, AdamSettings(learning_rate=0.1)), (sgd, SgdSettings(learning_rate=0.1))):\n"
        "    weight = torch.nn.Parameter(torch.ones(3))\n"
        "    optimiser = make([weight], settings)\n"
        "    weight.square().sum().backward()\n"
        "    optimiser.step()\n"
        "    optimiser.zero_grad()\n"
        "    optimiser.load_state_dict(optimiser.state_dict())\n"
        "    assert weight.grad is None and weight.requires_grad and (weight < 1).all()\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert not [name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
