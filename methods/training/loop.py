"""The one training loop: schedules, health, checkpoints, soft stops and exact resumption for every stage."""

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
# Mean squared distance of unit rows below about 0.001, for this number of steps in a row.
COLLAPSED_UNIFORMITY = -0.002
COLLAPSED_STEPS = 20
ZERO_LOSS_STEPS = 50
"""Steps in a row (or all steps of a shorter stage of FEW_STEPS or more) whose loss is exactly 0: the stage learns nothing."""
FEW_STEPS = 5
ZERO_LOSSES = "zero_losses"
NO_LABELS = "is anything labelled, or paired, in the scenes that train?"


class Diverged(BenchError):
    """The loss or a gradient is no longer a finite number."""


class Collapsed(BenchError):
    """All embeddings have become the same."""


class NothingToLearn(BenchError):
    """The loss is exactly 0 step after step."""


class OutOfTime(BenchError):
    """The soft limit came before anything was learnt."""


class Cancelled(BenchError):
    """A person asked the stage to stop; its checkpoint is saved."""


class StepResult(NamedTuple):
    """One forward and backward pass: the loss, what was seen, and free-form health."""

    loss: float
    seen: dict[str, int]
    health: dict[str, float]


class TrainingState:
    """Everything that a checkpoint holds besides the modules and the optimiser; `extra` is the stage's own."""

    def __init__(self) -> None:
        self.step = 0
        self.ledger = Ledger()
        self.extra: dict[str, Any] = {}


class Training(NamedTuple):
    """What a stage trains: everything that the loop, and whoever wants to look at single steps, needs.

    `make_batch(i)` prepares step i (from 0), in another process where the budget has loader workers; it depends on nothing but
    i. `run_step(i, batch)` computes gradients, and depends on nothing but these and the modules. `after_step` sees
    the state after each update and may keep its own things in `extra`. `save` writes the artifacts of a pre-training.
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
    """A whole pre-training stage: train, write the artifacts, and the metrics of its end event."""
    state = train(context, training)
    training.save()
    return {"steps": float(state.step)}


def train(context: StageContext, training: Training) -> TrainingState:
    """Run the optimiser steps, from the last checkpoint if there is one.

    Raises Diverged, Collapsed or NothingToLearn with the step, or Cancelled after saving. A soft limit ends the loop early
    (`context.stop`).
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
        _check_step(state, result, norm)
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
    """The `batch` item numbers (below `count`) of a step: each epoch is one seeded permutation."""
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        yield int(_permutation(context.seed(component, epoch), count)[place])


def first_usable(make: Callable[[int], Sample | None], index: int, count: int, rng: Generator, problem: str) -> Sample:
    """What `make` gives for item `index`, or for another drawn one (below `count`) where that gives None.

    Raises DataError after TRIES items in a row that cannot be used: "20 " and then `problem`.
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
    """CPU time of this process, and of the loader workers that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """Adds this attempt's time and FLOPs to what earlier attempts used; it starts when it is made."""

    def __init__(self, before: Ledger) -> None:
        self.before = before
        self.wall, self.cpu, self.flops = time.monotonic(), _cpu_seconds(), flops.sparse_forward

    def read(self, ledger: Ledger) -> Ledger:
        """A ledger with the time, memory and FLOPs so far."""
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
        """Time that this process held a GPU, and the most memory that it took of it."""
        if not torch.cuda.is_initialized():
            return {}
        peak = max(torch.cuda.max_memory_reserved(i) for i in range(torch.cuda.device_count()))
        seconds = self.before.gpu_seconds + time.monotonic() - self.wall
        return {"gpu_seconds": seconds, "peak_gpu_memory_bytes": max(self.before.peak_gpu_memory_bytes, peak)}


def _count(ledger: Ledger, step: int, seen: dict[str, int]) -> Ledger:
    return ledger.model_copy(
        update={"optimizer_steps": step, **{name: getattr(ledger, name) + number for name, number in seen.items()}}
    )


def _check_step(state: TrainingState, result: StepResult, norm: float) -> None:
    """Raises Diverged, Collapsed or NothingToLearn for a step that shows it."""
    if not (math.isfinite(result.loss) and math.isfinite(norm)):
        raise Diverged(f"step {state.step + 1}: loss {result.loss:g}, gradient norm {norm:g}; training has diverged")
    _watch_for_collapse(state, result.health)
    _watch_for_zero_loss(state, result.loss)


def _watch_for_collapse(state: TrainingState, health: dict[str, float]) -> None:
    """Embeddings that stay equal for many steps teach nothing any more; a step of a run that is still finding its way may."""
    for name in [n for n in health if n.endswith("uniformity")]:
        counter = f"collapsed/{name}"
        if health[name] <= COLLAPSED_UNIFORMITY:
            state.extra.pop(counter, None)
            continue
        steps = state.extra[counter] = state.extra.get(counter, 0) + 1
        if steps >= COLLAPSED_STEPS:
            raise Collapsed(
                f"step {state.step + 1}: the embeddings of all samples have been the same for {steps} steps ({name} "
                f"{health[name]:.4f}); training has collapsed"
            )


def _watch_for_zero_loss(state: TrainingState, loss: float) -> None:
    """A loss of exactly 0 in many steps in a row: nothing that could be learnt reaches the loss."""
    if loss != 0.0:
        state.extra.pop(ZERO_LOSSES, None)
        return
    steps = state.extra[ZERO_LOSSES] = state.extra.get(ZERO_LOSSES, 0) + 1
    if steps >= ZERO_LOSS_STEPS:
        raise NothingToLearn(f"step {state.step + 1}: the loss has been exactly 0 for {steps} steps; {NO_LABELS}")


def _check_end(context: StageContext, state: TrainingState, length: RunLength) -> None:
    """Raises what keeps a loop that has ended from being a training."""
    if context.stop == FINISH and state.step == 0 < length.steps:
        raise OutOfTime("the time limit came before the first step")
    if context.stop == CANCEL:
        raise Cancelled(f"cancelled after step {state.step} of {length.expected_steps}; the checkpoint is saved")
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
