"""A cluster within this process: jobs are threads that run tickets as a worker does; a test may lose or interrupt them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence

from pretrain_bench.harness.clusters.base import Ended, Interrupted, JobState, Place, ReadyStage
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, Ticket, job_of, ticket_of
from pretrain_bench.harness.clusters.worker import EndNote, run_tickets
from pretrain_bench.harness.executors.base import Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, Demand, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_in, stages_of
from pretrain_bench.harness.running.stage_runner import RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.in_process import SleepingInProcess

SLEEPING = ExecutorChoice(name="tests.faults.in_process:SleepingInProcess")


class FakeCluster:
    """Runs each stage as a separate job. `edit` may change a ticket on its way; `lose` selects jobs that end without a note."""

    waits_for_others = False

    def __init__(self, store: Store, limit: int = 100, executor: ExecutorChoice = SLEEPING) -> None:
        self.limit, self.job = limit, job_of(store, executor, RunOptions())
        self.notes: queue.Queue[EndNote] = queue.Queue()
        self.threads: list[threading.Thread] = []
        self.submitted: list[str] = []
        self.out: set[str] = set()
        self.most = 0
        self.closed = False
        self.edit: Callable[[Ticket], Ticket] = lambda ticket: ticket
        self.lose: Callable[[str], bool] = lambda key: False

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        return ()

    def demand(self, planned: PlannedStage) -> Demand:
        return demand(planned, Capacity(64, 1 << 20))

    def has_room(self, demand: Demand) -> bool:
        return True

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        for stage in stages:
            self.submitted.append(stage.key)
            self.out.add(stage.key)
            self.most = max(self.most, len(self.out))
            # Through JSON, as on a real cluster.
            ticket = Ticket.model_validate_json(self.edit(ticket_of(stage, self.job)).model_dump_json())
            self.threads.append(threading.Thread(target=self._work, args=(ticket,)))
            self.threads[-1].start()

    def _work(self, ticket: Ticket) -> None:
        if self.lose(ticket.key):
            self.notes.put(EndNote(key=ticket.key, problem="interrupted", message="node lost"))
            return
        for note in run_tickets([ticket], Stop()):
            self.notes.put(note)

    def ended(self, seconds: float) -> list[Ended]:
        try:
            note = self.notes.get(timeout=seconds)
        except queue.Empty:
            return []
        self.out.discard(note.key)
        return [Ended(note.key, problem=note.as_error())]

    def cancel(self) -> dict[str, str]:
        raise Interrupted("not asked for in these tests")

    def states(self) -> dict[str, JobState]:
        return {}

    def close(self) -> None:
        self.closed = True
        for thread in self.threads:
            thread.join()


def run_on(place: Place, store: Store, cells: list[PlannedCell], **options: object) -> list[StageReport]:
    """Run the stages of cells in a place, with the options of `run_in`; the driver has an executor of sleeping stages."""
    runner = StageRunner(store, SleepingInProcess(), Silent(), RunOptions())
    return run_in(place, stages_of(cells), runner, **options)  # type: ignore[arg-type]
