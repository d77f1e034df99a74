"""Plans: the stages of a suite, which are done, and an estimate for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.api.settings import Settings, resolve
from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.executors.choice import ENGINES
from pretrain_bench.harness.planning.plan import StageState, State, states
from pretrain_bench.harness.planning.resolved_suite import WaitingCell
from pretrain_bench.harness.planning.stage_specs import PlannedCell, finetune_title

if TYPE_CHECKING:
    import pandas as pd

PLAN_COLUMNS = (
    "key", "title", "kind", "method", "task", "protocol", "label_ratio", "pretrain_seed", "finetune_seed", "state", "reason",
    "seconds", "bytes", "source",
)  # fmt: skip
"""Columns of `Plan.to_frame`."""


class Plan(NamedTuple):
    """What a suite consists of. Nothing was prepared and nothing ran.

    `cells` have their stages, or the reason why they do not apply; `waiting` cells need data that are not prepared, so their
    stages are not known yet; `stages` holds every stage once, with its state.
    """

    suite: Suite
    budget: Budget
    profile: Profile
    cells: list[PlannedCell]
    waiting: list[WaitingCell]
    stages: list[StageState]
    needs: list[dict[str, str]]
    """Datasets and images that the cells need: `what`, `state` and `detail` (what to do, and the terms)."""

    @property
    def not_applicable(self) -> list[PlannedCell]:
        """Cells that make no sense, with their reason."""
        return [cell for cell in self.cells if not cell.stages]

    @property
    def remaining(self) -> list[StageState]:
        """Stages that are not done, with their estimates."""
        return [stage for stage in self.stages if stage.state != State.done]

    def to_frame(self) -> pd.DataFrame:
        """One row a stage, then one a cell that waits for data, then one a cell that is n/a.

        `seconds`, `bytes` and `source` are the estimate of a stage that is not done: wall time, size of its artifacts, and
        where the time comes from. A pre-training belongs to several cells: its task and fine-tuning seed are empty, and so is the
        fine-tuning seed of features, which several linear probes share.
        """
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=list(PLAN_COLUMNS))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for stage in self.stages:
            spec, cell = stage.planned.spec, stage.planned.cell
            row = (
                {"method": spec.method, "task": spec.task, "pretrain_seed": spec.seed} if cell is None else _axes(cell)
            )
            estimate = stage.estimate._asdict() if stage.estimate else {}
            facts = {"key": stage.key, "title": stage.planned.title, "kind": spec.kind}
            yield {**row, **facts, **estimate, "state": stage.state.value, "reason": stage.reason}
        for waiting in self.waiting:
            reason = f"needs data: {', '.join(waiting.datasets)}"
            yield {**_axes(waiting.cell), "state": "waiting", "reason": reason}
        for absent in self.not_applicable:
            yield {**_axes(absent.cell), "state": "n/a", "reason": absent.reason}


def plan(
    cells: Suite | str, *, runs: Runs = "runs", only: Iterable[str] = (), settings: Settings | None = None
) -> Plan:
    """Plan a suite (itself, its name or its file) against a folder of runs, which need not exist. Nothing is prepared or run.

    `only` picks cells: `["method=ours,csc", "task=*-sem"]`. Raises WrongUse for what does not exist, EnvironmentCannot for
    what this machine lacks.
    """
    resolved = resolve(cells, only, settings or Settings())
    if resolved.executor in ENGINES:
        from pretrain_bench.harness.executors.engine import connect

        resolved = resolved.with_own_images(connect(resolved.executor))
    planned, waiting = resolved.plan_prepared()
    planned_states = states(planned, open_runs(runs), resolved.machine.threads)
    return Plan(resolved.suite, resolved.budget, resolved.profile, planned, waiting, planned_states, resolved.needs())


def title_of(cell: Cell) -> str:
    """A cell in short, such as `ours -> s3dis-sem at 5%`."""
    return finetune_title(cell.method, cell.task, cell.label_ratio, cell.protocol)


def _axes(cell: Cell) -> dict[str, Any]:
    return {
        "title": title_of(cell),
        "kind": "finetune",
        "method": cell.method,
        "task": cell.task,
        "protocol": cell.protocol,
        "label_ratio": str(cell.label_ratio),
        "pretrain_seed": cell.pretrain_seed,
        "finetune_seed": cell.finetune_seed,
    }
