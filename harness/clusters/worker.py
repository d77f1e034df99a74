"""Runs the stages of tickets on a worker.

The record in the store is the result. Beside each ticket the worker leaves an end note, which explains a missing record.
SIGTERM and SIGUSR2 (sent before a job's time limit or preemption) end the stages gracefully with a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.clusters.base import Ended, Interrupted, ReadyStage
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, Job, Ticket, check_versions
from pretrain_bench.harness.executors.base import Executor, Stop
from pretrain_bench.harness.executors.choice import ENGINES, engine_executor, process_executor
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.running.capacity import whole_machine
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.last_events import last_step
from pretrain_bench.harness.running.scratch import scratch_for
from pretrain_bench.harness.running.stage_runner import Cancelled, InfraError, RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store, write_json

WAIT_SECONDS = 0.2
SOFT_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
TICKET, NOTE = ".ticket.json", ".end.json"
"""Suffixes of a stage's files in the folder of a submission, after its key."""


class EndNote(Spec):
    """How a stage ended on a worker. Without a `problem` its record is in the store."""

    key: str
    problem: Literal["", "interrupted", "not started", "refused", "environment", "failed"] = ""
    message: str = ""
    step: int = 0
    """The last step that the stage had reached."""
    host: str = ""

    def as_error(self) -> BaseException | None:
        """The problem in the form that the scheduler expects."""
        if self.problem in ("interrupted", "not started"):
            return Interrupted(self.message, self.step, started=self.problem == "interrupted")
        kinds = {"refused": WrongUse, "environment": EnvironmentCannot, "failed": BenchError}
        return kinds[self.problem](self.message) if self.problem else None


def run_files(files: Sequence[Path], stop: Stop | None = None) -> int:
    """Run the stages of ticket files, and write end notes beside them as the stages end; return 1 if one has left no record.
    Without `stop`, signals stop them gracefully, which requires the main thread."""
    if stop is None:
        stop = Stop()
        for number in SOFT_SIGNALS:
            signal.signal(number, lambda *_: stop.ask())
    tickets = {path: read_ticket(path) for path in files}
    places = {ticket.key: path.parent for path, ticket in tickets.items()}
    problems = 0
    for note in run_tickets(list(tickets.values()), stop):
        write_json(places[note.key] / f"{note.key}{NOTE}", note.model_dump(mode="json"), durable=True)
        problems += bool(note.problem)
    return int(problems > 0)


def read_ticket(path: Path) -> Ticket:
    """Read a ticket from its file."""
    return Ticket.model_validate_json(path.read_bytes())


def run_tickets(tickets: Sequence[Ticket], stop: Stop) -> Iterable[EndNote]:
    """Run the stages of tickets of one command, in parallel, within the capacity of this process; yields a note as each ends.

    After a request on `stop`, running stages end gracefully, and the others are not started.
    """
    job = tickets[0].job
    os.environ["BENCH_CACHE"] = str(job.cache)
    store = Store(job.runs)
    try:
        runner = _runner(job, store, [ticket.stage.method for ticket in tickets])
    except BenchError as error:
        yield from (_note(store, Ended(ticket.key, problem=error)) for ticket in tickets)
        return
    machine = LocalMachine(runner, whole_machine(job.executor.device), stop=stop)
    manifests: dict[Path, PreparedDataset] = {}
    waiting, running = list(tickets), 0
    try:
        while waiting or running:
            while waiting and not stop.asked:
                ready = _ready(waiting[0], machine, manifests)
                if isinstance(ready, Ended):
                    yield _note(store, ready)
                elif machine.has_room(ready.demand):
                    machine.submit([ready])
                    running += 1
                else:
                    break
                del waiting[0]
            if stop.asked:
                message = "its job ended before this stage's turn"
                yield from (EndNote(key=t.key, problem="not started", message=message, host=host()) for t in waiting)
                waiting = []
            ends = machine.ended(WAIT_SECONDS)
            running -= len(ends)
            yield from (_note(store, ended) for ended in ends)
    finally:
        machine.close()


def host() -> str:
    """The name of this node."""
    return platform.node()


def _runner(job: Job, store: Store, methods: Iterable[Method]) -> StageRunner:
    """The stage runner of this node, after the checks that concern all stages. Raises EnvironmentCannot."""
    check_versions(job)
    if not store.root.is_dir():
        raise EnvironmentCannot(
            f"node {host()} does not see the folder of runs {store.root}; put it on a file system that every node mounts"
        )
    store.check_writable()
    return StageRunner(
        store,
        executor_of(job.executor, methods),
        Silent(),
        RunOptions(job.retry, job.imagenet_weights, scratch_for(store.root)),
    )


def executor_of(choice: ExecutorChoice, methods: Iterable[Method]) -> Executor:
    """The executor on this node. Raises EnvironmentCannot if it does not work here."""
    if ":" in choice.name:
        module, _, name = choice.name.partition(":")
        own: Executor = getattr(importlib.import_module(module), name)()
        return own
    if choice.name in ENGINES:
        engine = engine_executor(choice.name)
        engine.own = {m.name: m.image for m in methods if m.image is not None}
        engine.check_images(methods)
        return engine
    executor = process_executor(choice.name, choice.device, choice.hidden)
    if choice.command is not None:
        executor.command = choice.command  # type: ignore[attr-defined]
    return executor


def _ready(ticket: Ticket, machine: LocalMachine, manifests: dict[Path, PreparedDataset]) -> ReadyStage | Ended:
    """The stage of a ticket, or the problem that prevents it."""
    try:
        planned = ticket.ready(manifests)
    except BenchError as error:
        return Ended(ticket.key, problem=error)
    return ReadyStage(planned, ticket.key, machine.demand(planned), ticket.needs_artifacts)


def _note(store: Store, ended: Ended) -> EndNote:
    """The driver's information about a stage that has ended here."""
    error, step = ended.problem, 0
    if error is None:
        return EndNote(key=ended.key, host=host())
    problem: Literal["interrupted", "refused", "environment", "failed"] = "failed"
    if isinstance(error, Cancelled | InfraError):
        problem = "interrupted"
        with contextlib.suppress(OSError):
            step = last_step(store, ended.key)
    elif isinstance(error, EnvironmentCannot):
        problem = "environment"
    elif isinstance(error, WrongUse):
        problem = "refused"
    message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return EndNote(key=ended.key, problem=problem, message=message, step=step, host=host())
