"""The training loop of all stages: schedules, health values, checkpoints, soft stops and exact resumption."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from pretrain_bench.benchmarks.support.errors import BenchError, DataError
from pretrain_bench.harness.contract.events import Ledger, Start, Step, Usage
from pretrain_bench.harness.contract.run_length import RunLength
from pretrain_bench.methods.context import CANCEL, FINISH, StageContext
from pretrain_bench.methods.flops import dense_layers_counted, flops
from pretrain_bench.methods.training.checkpoint import load_state, save_state
from pretrain_bench.methods.training.loader import batches
from pretrain_bench.methods.training.numerics import numerics
from pretrain_bench.methods.training.optim import Schedule

Sample = TypeVar("Sample")

CHECKPOINT_SECONDS = 15.0
TRIES = 20
MAX_STEP_EVENTS = 2000
COLLAPSED_UNIFORMITY = -0.002
"""Embeddings with a larger uniformity have collapsed: the mean squared distance of unit rows is below about 0.001."""
COLLAPSED_STEPS, COLLAPSED_SHARE = 20, 0.2
"""A stage is aborted after this many collapsed steps in a row that are this share of the run, and fails if its last 20 steps were
collapsed. Shorter phases pass: DepthContrast's point branch was collapsed in 36 of its first 55 steps of 600, and then spread."""
COLLAPSED = "collapsed"
"""Entry of `TrainingState.extra`: the collapsed steps in a row and the share of the run before them, by health value."""
ZERO_LOSS_STEPS = 50
"""Steps in a row with a loss of exactly 0 that abort the stage; in a shorter one of at least FEW_STEPS steps, all steps."""
FEW_STEPS = 5
ZERO_LOSSES = "zero_losses"
NO_LABELS = "check that the training scenes have labels, or pairs"


class Diverged(BenchError):
    """The loss or the gradient norm is non-finite."""


class Collapsed(BenchError):
    """All embeddings have become equal."""


class NothingToLearn(BenchError):
    """The loss has been exactly 0 in too many steps."""


class OutOfTime(BenchError):
    """The soft limit was reached before the stage had a result."""


class Cancelled(BenchError):
    """The user cancelled the stage."""


class StepResult(NamedTuple):
    """The result of one step: the loss, additions to the ledger's counters by name, and health values by name."""

    loss: float
    seen: dict[str, int]
    health: dict[str, float]


class TrainingState:
    """The part of a checkpoint besides modules and optimiser: step, ledger, and `extra`, entries of the stage's own."""

    def __init__(self) -> None:
        self.step = 0
        self.ledger = Ledger()
        self.extra: dict[str, Any] = {}


class Training(NamedTuple):
    """A training that the loop, or a caller of single steps, can run.

    `make_batch(i)` prepares step i (from 0), in another process if the budget has loader workers, and depends only on i.
    `run_step(i, batch)` computes gradients; it depends only on its arguments and the modules. `after_step` receives the state
    after each update and may store entries in `extra`. `save` writes the artifacts of a pre-training.
    """

    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    length: RunLength
    make_batch: Callable[[int], Any]
    run_step: Callable[[int, Any], StepResult]
    after_step: Callable[[TrainingState], None] | None = None
    save: Callable[[], None] = lambda: None


def train_and_save(context: StageContext, training: Training) -> dict[str, float | None]:
    """Run a pre-training stage: train and write the artifacts. Returns the metrics of its end event; raises as `train`."""
    state = train(context, training)
    training.save()
    return {"steps": float(state.step)}


def train(context: StageContext, training: Training) -> TrainingState:
    """Run the optimiser steps, resuming from the last checkpoint if there is one. The soft limit (`context.stop`) ends the loop
    early.

    Raises Diverged, Collapsed or NothingToLearn with the step; OutOfTime if the soft limit came before the first step; Cancelled
    after saving a checkpoint; LoaderFailed if a loader worker dies or hangs.
    """
    modules, optimiser, schedule, length, make_batch, run_step, after_step, _ = training
    state = _resume(context, modules, optimiser)
    context.start(Start(total_steps=length.expected_steps, resumed_from=state.step, numerics=numerics()))
    clock = Clock(state.ledger)
    log_every = max(1, math.ceil(length.expected_steps / MAX_STEP_EVENTS))
    saved = time.monotonic()
    workers = context.spec.limits.loader_workers
    prepared = batches(make_batch, range(state.step, length.steps), workers, context.device, context.warn)
    while not length.is_over(state.step, state.ledger) and context.stop is None:
        began = time.perf_counter()
        batch = next(prepared)
        waited = time.perf_counter() - began
        context.place = length.place(state.step, state.ledger)
        rate = schedule(context.place)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        before = flops.training
        with dense_layers_counted():
            result = run_step(state.step, batch)
        norm = _gradient_norm(optimiser)
        _check_step(state, result, norm, length)
        optimiser.step()
        state.step += 1
        seen = {**result.seen, "flops": flops.training - before}
        state.ledger = clock.read(_count(state.ledger, state.step, seen))
        is_last = length.is_over(state.step, state.ledger) or context.stop is not None
        if state.step % log_every == 0 or is_last:
            context.events.write(
                Step(
                    step=state.step,
                    loss=result.loss,
                    learning_rate=rate,
                    gradient_norm=norm,
                    seconds=time.perf_counter() - began,
                    data_seconds=waited,
                    done=length.share(state.step, state.ledger) if length.is_counted else None,
                    health={k: v for k, v in result.health.items() if math.isfinite(v)},
                )
            )
        context.events.alive()
        if after_step is not None:
            after_step(state)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(context, modules, optimiser, state, clock)
            saved = time.monotonic()
    del prepared  # ends the workers
    _save(context, modules, optimiser, state, clock)
    _check_end(context, state, length)
    return state


def batch_indices(context: StageContext, component: str, step: int, batch: int, count: int) -> Iterator[int]:
    """Yield the `batch` item indices (below `count`) of a step. Each epoch is a seeded permutation of all items."""
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        yield int(_permutation(context.seed(component, epoch), count)[place])


def first_usable(make: Callable[[int], Sample | None], index: int, count: int, rng: Generator, problem: str) -> Sample:
    """`make(index)`, or, if that is None, `make` of other items below `count` drawn with `rng`.

    Raises DataError with the message "20 `problem`" if TRIES (20) items in a row give None.
    """
    for _ in range(TRIES):
        sample = make(index)
        if sample is not None:
            return sample
        index = int(rng.integers(count))
    raise DataError(f"{TRIES} {problem}")


_permutations: dict[tuple[int, int], np.ndarray] = {}


def _permutation(seed: int, count: int) -> np.ndarray:
    if (seed, count) not in _permutations:
        if len(_permutations) > 3:
            _permutations.clear()
        _permutations[seed, count] = np.random.default_rng(seed).permutation(count)
    return _permutations[seed, count]


def _cpu_seconds() -> float:
    """CPU time in seconds of this process and of its ended children, such as loader workers."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """Adds the time and FLOPs of this attempt, from the creation of the clock, to those of earlier attempts in `before`."""

    def __init__(self, before: Ledger) -> None:
        self.before = before
        self.wall, self.cpu, self.flops = time.monotonic(), _cpu_seconds(), flops.sparse_forward

    def read(self, ledger: Ledger) -> Ledger:
        """A copy of `ledger` with time in seconds, peak memory in bytes and sparse FLOPs up to now."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return ledger.model_copy(
            update={
                "wall_seconds": self.before.wall_seconds + time.monotonic() - self.wall,
                "cpu_seconds": self.before.cpu_seconds + _cpu_seconds() - self.cpu,
                "sparse_flops": self.before.sparse_flops + flops.sparse_forward - self.flops,
                "peak_memory_bytes": max(self.before.peak_memory_bytes, peak),
                **self._gpu(),
            }
        )

    def _gpu(self) -> dict[str, float]:
        """Wall time since the clock started as GPU time, and the peak GPU memory reserved; nothing if no GPU is in use."""
        if not torch.cuda.is_initialized():
            return {}
        peak = max(torch.cuda.max_memory_reserved(i) for i in range(torch.cuda.device_count()))
        seconds = self.before.gpu_seconds + time.monotonic() - self.wall
        return {"gpu_seconds": seconds, "peak_gpu_memory_bytes": max(self.before.peak_gpu_memory_bytes, peak)}


def _count(ledger: Ledger, step: int, seen: dict[str, int]) -> Ledger:
    return ledger.model_copy(
        update={"optimizer_steps": step, **{name: getattr(ledger, name) + number for name, number in seen.items()}}
    )


def _check_step(state: TrainingState, result: StepResult, norm: float, length: RunLength) -> None:
    """Raise Diverged, Collapsed or NothingToLearn if the step shows it."""
    if not (math.isfinite(result.loss) and math.isfinite(norm)):
        raise Diverged(f"step {state.step + 1}: loss {result.loss:g}, gradient norm {norm:g}; training has diverged")
    _watch_for_collapse(state, result.health, length)
    _watch_for_zero_loss(state, result.loss)


def _watch_for_collapse(state: TrainingState, health: dict[str, float], length: RunLength) -> None:
    """Count collapsed steps in a row, and raise Collapsed if they last too long."""
    before, now = state.extra.get(COLLAPSED, {}), {}
    for name in [n for n in health if n.endswith("uniformity")]:
        if not health[name] > COLLAPSED_UNIFORMITY:  # NaN for a single row
            continue
        steps, start = before.get(name, (0, length.share(state.step, state.ledger)))
        now[name] = (steps + 1, start)
        lasted = length.share(state.step + 1, state.ledger) - start
        if steps + 1 >= COLLAPSED_STEPS and lasted >= COLLAPSED_SHARE:
            raise Collapsed(_collapse(state.step + 1, steps + 1, f"{name} {health[name]:.4f}"))
    state.extra[COLLAPSED] = now


def _collapse(step: int, steps: int, seen: str) -> str:
    return (
        f"step {step}: the embeddings of all samples have been equal for {steps} steps ({seen}); training has collapsed"
    )


def _watch_for_zero_loss(state: TrainingState, loss: float) -> None:
    """Raise NothingToLearn if the loss is exactly 0 in ZERO_LOSS_STEPS steps in a row."""
    if loss != 0.0:
        state.extra.pop(ZERO_LOSSES, None)
        return
    steps = state.extra[ZERO_LOSSES] = state.extra.get(ZERO_LOSSES, 0) + 1
    if steps >= ZERO_LOSS_STEPS:
        raise NothingToLearn(f"step {state.step + 1}: the loss has been exactly 0 for {steps} steps; {NO_LABELS}")


def _check_end(context: StageContext, state: TrainingState, length: RunLength) -> None:
    """Raise OutOfTime, Cancelled, Collapsed or NothingToLearn if the ended loop is not a finished training."""
    if context.stop == FINISH and state.step == 0 < length.steps:
        raise OutOfTime("the time limit was reached before the first step")
    if context.stop == CANCEL:
        raise Cancelled(f"cancelled after step {state.step} of {length.expected_steps}; the checkpoint is saved")
    for name, (steps, _) in state.extra.get(COLLAPSED, {}).items():
        if steps >= COLLAPSED_STEPS:
            raise Collapsed(_collapse(state.step, steps, f"{name} at the end"))
    if state.step >= FEW_STEPS and state.extra.get(ZERO_LOSSES) == state.step:
        raise NothingToLearn(f"the loss was exactly 0 in all {state.step} steps; {NO_LABELS}")


def _gradient_norm(optimiser: torch.optim.Optimizer) -> float:
    norms = [p.grad.norm() for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _save(
    context: StageContext,
    modules: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    state: TrainingState,
    clock: Clock,
) -> None:
    state.ledger = clock.read(state.ledger)
    context.events.write(Usage(ledger=state.ledger))
    save_state(
        {
            "step": state.step,
            "ledger": state.ledger.model_dump(),
            "extra": state.extra,
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimiser": optimiser.state_dict(),
            "events_position": context.events.position(),
        },
        context.out / "checkpoint.pt",
    )


def _resume(context: StageContext, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> TrainingState:
    state = TrainingState()
    saved = load_state(context.out / "checkpoint.pt")
    if saved is None:
        context.events.cut(0)
        return state
    for name, module in modules.items():
        module.load_state_dict(saved["modules"][name])
    optimiser.load_state_dict(saved["optimiser"])
    state.step, state.ledger, state.extra = saved["step"], Ledger(**saved["ledger"]), saved["extra"]
    context.events.cut(saved["events_position"])
    return state
