"""Plans: the stages of a suite with their state, and an estimate for those to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.api.settings import Settings, resolve
from pretrain_bench.api.stores import AnyPath, Runs, open_runs
from pretrain_bench.api.suites import Names
from pretrain_bench.api.suites import suite as suite_named
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.simulated import ClusterShape, Simulation, simulate
from pretrain_bench.harness.executors.choice import ENGINES
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.plan import StageState, State, Total, states, to_run
from pretrain_bench.harness.planning.registration import register as write_registration
from pretrain_bench.harness.planning.renamed_budget import known_budget
from pretrain_bench.harness.planning.resolved_suite import WaitingCell, budget_and_profile
from pretrain_bench.harness.planning.stage_specs import PlannedCell, finetune_title, lines_on_absent
from pretrain_bench.harness.running.stage_runner import Retry

if TYPE_CHECKING:
    import pandas as pd

ALL_METHODS = "all methods"
PLAN_COLUMNS = (
    "key", "title", "kind", "method", "task", "protocol", "label_ratio", "pretrain_seed", "finetune_seed", "state", "reason",
    "seconds", "bytes", "source",
)  # fmt: skip
"""Columns of `Plan.to_frame`."""


class Plan(NamedTuple):
    """The cells and stages of a suite. Nothing was prepared or run.

    `cells` have their stages, or the reason why they do not apply; `waiting` cells need data that are not prepared, so their
    keys are not known yet; `stages` holds every stage once, with its state.
    """

    suite: Suite
    budget: Budget
    profile: Profile
    cells: list[PlannedCell]
    waiting: list[WaitingCell]
    stages: list[StageState]
    needs: list[dict[str, Any]]
    """Datasets and images that the cells need: `what`, `state`, `bytes` in the cache (None where that is not known), and `detail`
    (what to do, and the terms)."""
    expected: list[StageState]
    """Stages of the waiting cells, from the expected size of their data; each once, with its estimate."""
    rates: Rates | None = None
    """The machine that it was planned for, if it is another one."""
    how_to_prepare: tuple[str, ...] = ()
    """The commands that prepare the data that cells wait for."""
    retry: Retry = "infra"
    """Which runs would be retried."""
    notices: tuple[str, ...] = ()
    """What `run` would say before it starts: stand-ins for data, unused seeds or label lists, a budget's other name."""

    @property
    def not_applicable(self) -> list[PlannedCell]:
        """Cells that make no sense, with their reason."""
        return [cell for cell in self.cells if not cell.stages]

    def lines_on_not_applicable(self) -> list[str]:
        """One line for each reason why cells are n/a, with their number."""
        return lines_on_absent(self.not_applicable)

    @property
    def remaining(self) -> list[StageState]:
        """Stages that are not done, with their estimates."""
        return [stage for stage in self.stages if stage.state != State.done]

    @property
    def cache_bytes(self) -> int:
        """Size of the prepared data of the cells, in the cache; without datasets whose size is not known."""
        return sum(need["bytes"] or 0 for need in self.needs)

    def totals(self) -> dict[str, Total]:
        """Totals of the stages to run by method and for `all methods`, stages of waiting cells included."""
        left = to_run([*self.stages, *self.expected], self.retry == "failed")
        by_method: dict[str, list[StageState]] = {}
        for stage in left:
            by_method.setdefault(stage.planned.spec.method, []).append(stage)
        return {**{m: Total.of(stages) for m, stages in by_method.items()}, ALL_METHODS: Total.of(left)}

    def simulate(self, cluster: str | ClusterShape) -> Simulation:
        """How long a cluster of equal nodes, such as "nodes=16,gpus=8", would take for what is left to run, by the scheduler's
        own policy. Raises WrongUse for a shape that cannot be read, and for nodes without the GPUs that stages need."""
        shape = ClusterShape.parse(cluster) if isinstance(cluster, str) else cluster
        return simulate([*self.stages, *self.expected], shape, self.retry == "failed")

    def register(self, file: AnyPath, sign: AnyPath | None = None) -> str:
        """Write the cells with their keys to a file, signed with an SSH key if one is given, and return a line about it.

        `audit(registered=...)` later names the cells that are absent. A file that already registers these cells is kept with
        its time. Raises WrongUse if no cell applies, if a key is not known yet or depends on the machine, and for a file of
        other cells.
        """
        if self.rates is not None:
            raise WrongUse(f"--register {file}: keys depend on the machine that runs, so leave out --on and node=")
        if self.waiting:
            raise WrongUse(
                f"--register {file}: {len(self.waiting)} cells wait for data, so their keys are not known; let "
                f"`bench run --register` do it, or prepare them first: {', '.join(self.how_to_prepare)}"
            )
        return register_cells(self.suite, self.cells, file, sign)

    def to_frame(self) -> pd.DataFrame:
        """One row for each stage, then for each cell that waits for data of unknown size, then for each n/a cell.

        A stage that waits for data has no `key` yet. `seconds`, `bytes` and `source` are the estimate of a stage that is not
        done: wall time, size of its artifacts, and where the time comes from. A pre-training belongs to several cells: its task
        and fine-tuning seed are empty, and so is the fine-tuning seed of features, which several linear probes share.
        """
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=list(PLAN_COLUMNS))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for stage in [*self.stages, *self.expected]:
            spec, cell = stage.planned.spec, stage.planned.cell
            row = (
                {"method": spec.method, "task": spec.task, "pretrain_seed": spec.seed} if cell is None else _axes(cell)
            )
            estimate = stage.estimate._asdict() if stage.estimate else {}
            facts = {"key": stage.known_key, "title": stage.planned.title, "kind": spec.kind}
            yield {**row, **facts, **estimate, "state": stage.state.value, "reason": stage.reason}
        for waiting in self.waiting:
            if waiting.stages:
                continue
            reason = f"for data: {', '.join(waiting.datasets)}"
            yield {**_axes(waiting.cell), "state": "waiting", "reason": reason}
        for absent in self.not_applicable:
            yield {**_axes(absent.cell), "state": "n/a", "reason": absent.reason}


def plan(
    cells: Suite | AnyPath,
    *,
    runs: Runs = "runs",
    only: Names = (),
    settings: Settings | None = None,
    on: AnyPath | None = None,
    synthetic: bool = False,
    retry: Retry = "infra",
) -> Plan:
    """Plan a suite (itself, its name or its file) against a folder of runs, which need not exist. Nothing is prepared or run.

    Args:
        cells: a suite, its name or its file; see `cells` for one in code.
        runs: the folder of runs.
        only: filters such as `["method=ours,csc", "task=*-sem"]`.
        settings: data roots, threads, device and executor.
        on: the machine to estimate for: h100, a100, rtx4090, cpu, or a YAML file of rates; this one by default.
        synthetic: plan a GPU-sized budget on generated data; by default on datasets of their published size.
        retry: which runs `run` would retry: totals count failed ones, and pruned ones that they build on, only with `failed`.

    Raises WrongUse for what does not exist, EnvironmentCannot for what this machine lacks.
    """
    suite, used = cells if isinstance(cells, Suite) else suite_named(cells), settings or Settings()
    rates = None if on is None else find(Rates, on)
    if rates is not None:
        used = used._replace(device="cpu")  # the present machine's limits do not matter
    sized_for_gpu = bool(budget_and_profile(suite)[0].pretrain.gpus)
    resolved = resolve(suite, only, used, stand_ins=synthetic or not sized_for_gpu)
    if rates is not None:
        resolved = resolved._replace(machine=resolved.machine._replace(device=rates.device))
    if resolved.executor in ENGINES:
        from pretrain_bench.harness.executors.engine import connect

        resolved = resolved.with_own_images(connect(resolved.executor))
    store, threads = open_runs(runs), resolved.machine.threads
    budget, renamed = known_budget(resolved.budget, resolved.methods.values(), store)
    resolved = resolved._replace(budget=budget)
    planned, waiting = resolved.plan_prepared()
    again, later = retry == "failed", [stage for one in waiting for stage in one.stages]
    known = states(planned, store, threads, rates, again, later)
    expected = states((PlannedCell(w.cell, w.stages) for w in waiting), store, threads, rates, again)
    names, listed = (resolved.suite, resolved.budget, resolved.profile), {s.key for s in known}
    expected = [s for s in expected if s.key not in listed]
    needs = resolved.needs([*(one.cell for one in planned), *(one.cell for one in waiting)])
    absent = sorted({name for one in waiting for name in one.datasets})
    notices = (*resolved.notices, *([renamed] if renamed else []))
    how = tuple(f"`{resolved.sources.how_to_prepare(name)}`" for name in absent)
    return Plan(*names, planned, waiting, known, needs, expected, rates, how, retry, notices)


def check_signing(register: object, sign: object) -> None:
    """Raise WrongUse for a key to `sign` with, and no file to `register` in."""
    if sign is not None and register is None:
        raise WrongUse("--sign signs the registration: give --register FILE as well")


def register_cells(suite: Suite, cells: list[PlannedCell], file: AnyPath, sign: AnyPath | None) -> str:
    """Write the applicable cells to a file, and return a line about it. Raises WrongUse for a file of other cells."""
    if not any(cell.stages for cell in cells):
        raise WrongUse(f"--register {file}: no cell applies" + (f": {cells[0].reason}" if cells else ""))
    path, key = Path(file), None if sign is None else Path(sign)
    registered = write_registration(path, (suite.name, suite.version), cells, key)
    return f"{path}: {len(registered.cells)} cells registered {registered.registered_at}"


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
