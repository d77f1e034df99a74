"""The planner turns cells into stages; cells share equal stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.contract.contamination import contamination_of
from pretrain_bench.harness.contract.stage import Keys, StageSpec
from pretrain_bench.harness.planning.applicable import NotApplicable
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.recipes import values_from_task
from pretrain_bench.harness.planning.stage_specs import (
    NO_DATASET,
    CellSpecs,
    Machine,
    PlannedCell,
    PlannedStage,
    features_stage,
    finetune_stage,
    pretrain_stages,
)


class SuiteSpecs(NamedTuple):
    """The specs that the cells of a suite use, by name."""

    methods: Mapping[str, Method]
    tasks: Mapping[str, Task]
    budget: Budget
    profile: Profile

    def of(self, cell: Cell) -> CellSpecs:
        """The specs of one cell."""
        return CellSpecs(self.methods[cell.method], self.tasks[cell.task], self.budget, self.profile)


class Planner:
    """Plans the stages of cells that share a budget and a profile.

    `names` maps each requested dataset to the one in use (the stand-in of a dataset without data); `data` maps that to its
    prepared form.
    """

    def __init__(
        self, specs: SuiteSpecs, names: Mapping[str, str], data: Mapping[str, PreparedDataset], machine: Machine
    ) -> None:
        self.specs, self.names, self.data, self.machine = specs, names, data, machine
        # By purpose, then by pre-training seed: stages of one purpose differ in seed and parents only.
        self._pretrained: dict[tuple[str, ...], dict[int, list[PlannedStage]]] = {}
        self._features: dict[tuple[str, ...], dict[int, PlannedStage]] = {}
        self._finetuned: dict[tuple[str, ...], PlannedStage] = {}
        self._followed: dict[tuple[str, str], str] = {}
        self._keys = Keys()

    def distinct(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        """Each cell once, with the dataset that its pre-training reads: a stand-in, or none."""
        seen: set[tuple[object, ...]] = set()
        for asked in cells:
            method = self.specs.methods[asked.method]
            if method.is_imported and asked.pretrain_seed >= len(method.checkpoints):
                continue  # a file is one pre-training
            needs_data = method.needs.data
            used = self.names[asked.pretrain_dataset] if needs_data else NO_DATASET
            cell = asked if used == asked.pretrain_dataset else asked.copy_with(pretrain_dataset=used)
            which = (
                cell.method, used, cell.task, cell.protocol, str(cell.label_ratio), cell.pretrain_seed, cell.finetune_seed,
            )  # fmt: skip
            if which not in seen:
                seen.add(which)
                yield cell

    def reads(self, cell: Cell) -> tuple[str, ...]:
        """The datasets that a cell (from `distinct`) reads: its task's and its pre-training's."""
        target = self.names[self.specs.tasks[cell.task].dataset]
        return (target,) if cell.pretrain_dataset in (NO_DATASET, target) else (target, cell.pretrain_dataset)

    def plan_cell(self, cell: Cell) -> PlannedCell:
        """A cell (from `distinct`) with its stages or the reason why it has none."""
        try:
            return PlannedCell(cell, tuple(self.stages(cell)))
        except NotApplicable as reason:
            return PlannedCell(cell, (), str(reason))

    def stages(self, cell: Cell) -> list[PlannedStage]:
        """The stages of a cell (from `distinct`), in execution order. Raises WrongUse for an impossible cell."""
        features = [self._features_of(cell)] if cell.protocol == "linear" else []
        return [*self._pretrain(cell), *features, self._finetune(cell)]

    def _pretrain(self, cell: Cell) -> list[PlannedStage]:
        of_seed = self._pretrained.setdefault((cell.method, cell.pretrain_dataset, self._values_from_task(cell)), {})
        if (seed := cell.pretrain_seed) not in of_seed:
            first, specs = next(iter(of_seed.values()), None), self.specs.of(cell)
            if first is None or specs.method.checkpoints:  # each seed imports a file of its own
                source = self.data[cell.pretrain_dataset] if cell.pretrain_dataset != NO_DATASET else None
                of_seed[seed] = pretrain_stages(specs, source, seed, self.machine)
            else:
                of_seed[seed] = self._with_seed(first, seed)
        return of_seed[seed]

    def _values_from_task(self, cell: Cell) -> str:
        """The fields of a pre-training that follow the task, as text."""
        which = (cell.method, cell.task)
        if which not in self._followed:
            method, task, _, profile = self.specs.of(cell)
            self._followed[which] = repr([values_from_task(method, s, profile, task) for s in method.stages])
        return self._followed[which]

    def _with_seed(self, first: list[PlannedStage], seed: int) -> list[PlannedStage]:
        """A pre-training that differs from the `first` of its purpose in its seed only."""
        stages: list[PlannedStage] = []
        parents: dict[str, str] = {}
        for stage in first:
            spec = stage.spec.copy_with(seed=seed, parents=parents)
            stages.append(stage._replace(spec=spec))
            parents = {**parents, spec.stage: self._keys.of(spec)}
        return stages

    def _features_of(self, cell: Cell) -> PlannedStage:
        """The features stage of a linear probe, which all shares of labelled scenes have in common."""
        last = self._pretrain(cell)[-1]
        labels = cell.label_ratio.model_copy(update={"percent": 100.0})
        of_seed = self._features.setdefault((cell.method, cell.pretrain_dataset, cell.task, str(labels)), {})
        if (seed := cell.pretrain_seed) not in of_seed:
            first = next(iter(of_seed.values()), None)
            if first is None:
                of_seed[seed] = features_stage(cell, self.specs.of(cell), self._target(cell), self.machine, last)
            else:
                of_seed[seed] = first._replace(spec=self._behind(first, last, seed))
        return of_seed[seed]

    def _finetune(self, cell: Cell) -> PlannedStage:
        last = self._pretrain(cell)[-1]
        features = self._features_of(cell) if cell.protocol == "linear" else None
        which = (cell.method, cell.pretrain_dataset, cell.task, cell.protocol, str(cell.label_ratio))
        if which not in self._finetuned:
            stage = finetune_stage(cell, self.specs.of(cell), self._target(cell), self.machine, last, features)
            seen = contamination_of(stage.spec, [s.spec for s in self._pretrain(cell)])
            self._finetuned[which] = stage._replace(contamination=seen)
        first = self._finetuned[which]
        spec = self._behind(first, features or last, cell.finetune_seed)
        if cell.label_ratio.official:  # its file's hash is known since the split was made
            cell = cell.model_copy(update={"label_ratio": spec.label_ratio})
        return first._replace(spec=spec, cell=cell)

    def _behind(self, first: PlannedStage, parent: PlannedStage, seed: int) -> StageSpec:
        """The spec of the `first` stage of a purpose, with another parent and seed."""
        parents = {parent.spec.stage: self._keys.of(parent.spec)}
        return first.spec.copy_with(seed=seed, parents=parents)

    def _target(self, cell: Cell) -> PreparedDataset:
        return self.data[self.names[self.specs.tasks[cell.task].dataset]]


def stages_of(
    cell: Cell, specs: CellSpecs, data: Mapping[str, PreparedDataset], machine: Machine
) -> list[PlannedStage]:
    """The stages of a single cell; `data` maps the dataset names of the cell and its task. Raises as `Planner.stages`."""
    suite = SuiteSpecs({cell.method: specs.method}, {cell.task: specs.task}, specs.budget, specs.profile)
    return Planner(suite, {name: name for name in data}, data, machine).stages(cell)
