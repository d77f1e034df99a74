"""Check that a method conforms to the contract by running it: the suite behind `bench methods check`.

Every check runs the method's stages through an executor on small prepared data, in a store of its own, with a budget of a few
steps. Checks do not depend on a method's implementation: like the harness, they only see specs, events, artifacts and records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.specs.budget import Budget, BudgetHalf, Currency
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
from pretrain_bench.benchmarks.support.files import copy_tree, link_or_copy
from pretrain_bench.harness.contract.events import EVENTS_FILE, End, Event, Start, Step, Usage, read_events
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.executors.base import Execution, Executor, StageLaunch
from pretrain_bench.harness.planning.applicable import NEEDED, check_needs
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import NO_DATASET, CellSpecs, Machine, PlannedStage
from pretrain_bench.harness.running.capacity import whole_machine
from pretrain_bench.harness.running.display import Display, Silent
from pretrain_bench.harness.running.scheduler import run_stages
from pretrain_bench.harness.running.stage_runner import Cancelled, RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store

STEPS_A_STAGE = 6
FINETUNE_STEPS = 2
TASK = "s3dis-sem"
PROFILE = "smoke"


class CheckResult(NamedTuple):
    """The result of one check: its name, the verdict, and an explanation."""

    check: str
    verdict: Literal["ok", "failed", "n/a"]
    seen: str


class Interrupting(Silent):
    """Shows nothing, and interrupts once, like Ctrl-C, the first stage that reaches step `stop_at`."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at: int | None = stop_at

    def stage(self, title: str) -> Callable[[object], None]:
        """Return a function that raises KeyboardInterrupt at the chosen step."""

        def on_event(event: object) -> None:
            if self.stop_at is not None and isinstance(event, Step) and event.step >= self.stop_at:
                self.stop_at = None
                raise KeyboardInterrupt

        return on_event


class PretrainElsewhere:
    """Pre-trains with one executor (a user's image) and fine-tunes with another (this project's code)."""

    def __init__(self, pretrain: Executor, finetune: Executor) -> None:
        self.pretrain, self.finetune = pretrain, finetune
        self.name, self.label_isolation = pretrain.name, pretrain.label_isolation
        self.not_enforced = pretrain.not_enforced

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`."""
        executor = self.pretrain if launch.spec.kind == "pretrain" else self.finetune
        return executor.run(launch)


class Conformance:
    """The checks of one method. It is pre-trained on `source` and fine-tuned on `target`; the runs go to stores in `folder`."""

    def __init__(
        self, method: Method, source: PreparedDataset, target: PreparedDataset, executor: Executor, folder: Path
    ) -> None:
        self.method, self.source, self.target = method, source, target
        self.executor, self.folder = executor, folder
        steps = STEPS_A_STAGE * len(method.stages)
        self.budget = Budget(name="check", version=1, pretrain=_half(steps), finetune=_half(FINETUNE_STEPS))

    def run(self) -> Iterator[CheckResult]:
        """Run the checks and yield each result. A check that raises an expected error has failed; other errors are raised."""
        yield self._refusals()
        whole = self._guarded("run", self._runs)
        yield whole
        if whole.verdict == "failed":
            return
        for name, check in (
            ("events", self._events),
            ("budget", self._keeps_budget),
            ("fine-tuning", self._transferred),
            ("labels", self._without_labels),
            ("repetition", self._repeats),
            ("seed", self._seeds),
            ("resumption", self._resumes),
        ):
            yield self._guarded(name, check)

    def _guarded(self, name: str, check: Callable[[], str]) -> CheckResult:
        try:
            return CheckResult(name, "ok", check())
        except _NotApplicable as reason:
            return CheckResult(name, "n/a", str(reason))
        except (BenchError, _Failed) as error:
            return CheckResult(name, "failed", str(error))

    # ------------------------------------------------------------------------------------------------------- checks

    def _refusals(self) -> CheckResult:
        name = "needs"
        needed = [n for n in NEEDED if getattr(self.method.needs, n)]
        for missing in needed:
            provides = tuple(p for p in self.source.dataset.provides if p != missing)
            bare = self.source.dataset.model_copy(update={"provides": provides})
            try:
                check_needs(self.method, bare)
            except WrongUse as error:
                if missing in str(error):
                    continue
            return CheckResult(name, "failed", f"a dataset without {missing} is not refused")
        return CheckResult(
            name,
            "ok" if needed else "n/a",
            f"refused by name without {', '.join(needed)}" if needed else "it needs no data",
        )

    def _runs(self) -> str:
        # The runner has checked the artifacts: a whole backbone, finite, of the right shapes.
        records = self._run_stages("whole")
        seconds = sum(r.measured.wall_seconds for r in records)
        return f"{len(records) - 1} stage(s) to a whole backbone, and a fine-tuning: {seconds:.0f} s"

    def _events(self) -> str:
        seen = []
        for planned in self._planned()[:-1]:
            events = self._read_events("whole", planned)
            if not events or not isinstance(events[0], Start) or not isinstance(events[-1], End):
                raise _Failed(f"{planned.title}: events do not start with start and finish with end")
            if not any(isinstance(e, Usage) for e in events):
                raise _Failed(f"{planned.title}: no usage event")
            steps = [e.step for e in events if isinstance(e, Step)]
            if steps != sorted(set(steps)):
                raise _Failed(f"{planned.title}: step numbers do not increase")
            health = sorted({name for e in events if isinstance(e, Step) for name in e.health})
            seen.append(f"{planned.spec.stage}: {len(steps)} steps, health of {len(health)} kinds")
        return "; ".join(seen)

    def _keeps_budget(self) -> str:
        total = 0
        for planned in self._planned()[:-1]:
            ledger = self._record("whole", planned).ledger
            reported = [e.step for e in self._read_events("whole", planned) if isinstance(e, Step)]
            if ledger.optimizer_steps != max(reported, default=0):
                raise _Failed(
                    f"{planned.title}: {ledger.optimizer_steps} steps in the ledger, {max(reported, default=0)} in the events"
                )
            total += ledger.optimizer_steps
        if total > self.budget.pretrain.amount:
            raise _Failed(f"{total} steps over all stages, but the budget allows {self.budget.pretrain.amount:g}")
        return f"{total} of {self.budget.pretrain.amount:g} steps over all stages"

    def _transferred(self) -> str:
        note = self._record("whole", self._planned()[-1]).notes.get("transferred_tensors")
        if note is None:
            raise _Failed("the fine-tuning does not report the tensors that it loaded")
        return note

    def _without_labels(self) -> str:
        if not self.method.needs.data:
            raise _NotApplicable("it reads no data")
        if self.method.needs.labels:
            raise _NotApplicable("it receives labels, as its method file declares")
        blind = self.folder / "blind"
        copy_tree(self.source.folder / UNLABELLED, blind / UNLABELLED, link_or_copy)
        if (blind / LABELLED).exists():
            raise _Failed("the copy holds labels")
        self._same_bits("blind", self.source._replace(folder=blind))
        return "bit-identical on a copy of the data without any labels"

    def _repeats(self) -> str:
        self._same_bits("again", self.source)
        return "bit-identical when repeated with the same key in an empty store"

    def _seeds(self) -> str:
        self._run_stages("seed", seed=1)
        if self._hashes("seed", seed=1) == self._hashes("whole"):
            raise _Failed("seed 1 gives the same backbone as seed 0")
        return "seed 1 gives a different backbone"

    def _resumes(self) -> str:
        stages = [p for p in self._planned()[:-1] if any(isinstance(e, Step) for e in self._read_events("whole", p))]
        if not stages:
            raise _NotApplicable("it takes no steps")
        display = Interrupting(stop_at=STEPS_A_STAGE // 2)
        try:
            self._run_stages("resumed", display=display)
        except Cancelled:
            self._run_stages("resumed")
        else:
            raise _Failed("it ran to its end instead of stopping on Ctrl-C")
        if self._hashes("resumed") != self._hashes("whole"):
            raise _Failed("interrupted and resumed, it is not bit-identical")
        return f"interrupted after step {STEPS_A_STAGE // 2} of its first stage and resumed: bit-identical"

    # ------------------------------------------------------------------------------------------------------ running

    def _planned(self, seed: int = 0, source: PreparedDataset | None = None) -> list[PlannedStage]:
        profile, task = find(Profile, PROFILE), find(Task, TASK)
        source = source or self.source
        needs_data = self.method.needs.data
        cell = Cell(
            method=self.method.name,
            pretrain_dataset=source.dataset.name if needs_data else NO_DATASET,
            task=TASK,
            pretrain_seed=seed,
            budget=self.budget.name,
            profile=PROFILE,
        )
        data = {source.dataset.name: source, task.dataset: self.target}
        return stages_of(cell, CellSpecs(self.method, task, self.budget, profile), data, Machine(1, "torch", "cpu"))

    def _run_stages(
        self, store: str, seed: int = 0, source: PreparedDataset | None = None, display: Display | None = None
    ) -> list[Record]:
        planned = self._planned(seed, source)
        runner = StageRunner(Store(self.folder / store), self.executor, display or Silent(), RunOptions())
        reports = run_stages(planned, runner, whole_machine("cpu"))
        last = reports[-1].record
        if last.outcome != Outcome.ok:
            raise _Failed(f"{reports[-1].planned.title}: {last.outcome.value}: {last.message}")
        return [r.record for r in reports]

    def _same_bits(self, store: str, source: PreparedDataset) -> None:
        self._run_stages(store, source=source)
        for name, digest in self._hashes("whole").items():
            if self._hashes(store).get(name) != digest:
                raise _Failed(f"{name} differs")

    def _folder(self, store: str, planned: PlannedStage) -> Path:
        return Store(self.folder / store).folder(planned.spec.kind, planned.spec.key)

    def _record(self, store: str, planned: PlannedStage) -> Record:
        record = Store(self.folder / store).record(planned.spec.kind, planned.spec.key)
        if record is None:
            raise _Failed(f"{planned.title}: no record")
        return record

    def _read_events(self, store: str, planned: PlannedStage) -> list[Event]:
        return list(read_events(self._folder(store, planned) / EVENTS_FILE))

    def _hashes(self, store: str, seed: int = 0) -> dict[str, str]:
        """sha256 of the artifacts of all pre-training stages, by stage and name."""
        return {
            f"{p.spec.stage}/{name}": entry.sha256
            for p in self._planned(seed)[:-1]
            for name, entry in self._record(store, p).artifacts.items()
        }


class _Failed(Exception):
    """A failed check, with the reason."""


class _NotApplicable(Exception):
    """A check that does not apply to this method, with the reason."""


def _half(steps: int) -> BudgetHalf:
    return BudgetHalf(
        currency=Currency.optimizer_steps,
        optimizer_steps=steps,
        cpus=1,
        wall_seconds=600,
        memory_mib=8192,
        disk_mib=2048,
    )
