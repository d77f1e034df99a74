"""A suite with all that a command needs to plan or run it: its specs loaded, its data sets resolved, this machine's choices."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Filter, Suite, parse_filters
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.plan import Planner
from pretrain_bench.harness.planning.prepared_data import (
    PreparedDataset,
    ProgressFor,
    parse_roots,
    ready,
    ready_already,
    resolve,
)
from pretrain_bench.harness.planning.stage_specs import (
    Machine,
    NotApplicable,
    PlannedCell,
    check_applicable,
    check_needs,
)

if TYPE_CHECKING:
    from docker import DockerClient

MAX_DEFAULT_THREADS = 8


class RunOverrides(NamedTuple):
    """What a person says on the command line beside the suite."""

    data: list[str]
    pretrain_data: list[str]
    threads: int | None
    backend: str
    device: str
    executor: str
    imagenet_weights: Path | None


class WaitingCell(NamedTuple):
    """A cell whose stages are not known yet, with the datasets that are not prepared: their content is part of every key."""

    cell: Cell
    datasets: tuple[str, ...]


class ResolvedSuite(NamedTuple):
    """See the module's text. `names` maps datasets as they are asked for to those that are used."""

    suite: Suite
    filters: list[Filter]
    methods: dict[str, Method]
    tasks: dict[str, Task]
    budget: Budget
    profile: Profile
    machine: Machine
    roots: dict[str, Path]
    names: dict[str, str]
    said: list[str]
    executor: str

    def with_own_images(self, client: DockerClient) -> ResolvedSuite:
        """The same with users' own methods as their images are now, which is part of their keys."""
        from pretrain_bench.harness.executors.image_state import with_image

        return self._replace(methods={k: with_image(client, m) if m.image else m for k, m in self.methods.items()})

    def cells(self) -> list[Cell]:
        """The cells, with methods and datasets as the suite names them. Raises WrongUse where there is none."""
        own = {asked: method.name for asked, method in self.methods.items()}
        return cells_of(self.suite, self.budget, self.profile, own, self.filters)

    def datasets(self) -> list[str]:
        """Names of the datasets that the cells read, each once."""
        planner = self._planner({})
        return list(dict.fromkeys(name for cell in planner.distinct(self.cells()) for name in planner.reads(cell)))

    def prepare(self, strict: bool, progress: ProgressFor, say: Callable[[str], None]) -> list[PlannedCell]:
        """Prepare every dataset, then plan every cell. Raises WrongUse for what cannot be."""
        stride, world = self.profile.frame_stride, self.profile.world
        data = {name: ready(name, self.roots, stride, strict, progress, say, world) for name in self.datasets()}
        return self._planner(data).plan(self.cells())

    def plan_prepared(self) -> tuple[list[PlannedCell], list[WaitingCell]]:
        """Plan the cells whose data are prepared, or that have no stages whatever their data hold; and the others."""
        stride, world = self.profile.frame_stride, self.profile.world
        specs = {name: find(Dataset, name) for name in self.datasets()}
        there = {name: ready_already(name, self.roots, stride, world) for name in specs}
        data = {name: found for name, found in there.items() if found is not None}
        planner = self._planner(data)
        planned, waiting = [], []
        for cell in planner.distinct(self.cells()):
            missing = tuple(name for name in planner.reads(cell) if name not in data)
            if not missing:
                planned.append(planner.plan_cell(cell))
                continue
            target = specs[self.names[self.tasks[cell.task].dataset]]
            try:
                check_applicable(
                    planner.methods[cell.method], specs.get(cell.pretrain_dataset), self.tasks[cell.task], target
                )
                waiting.append(WaitingCell(cell, missing))
            except NotApplicable as reason:
                planned.append(PlannedCell(cell, (), str(reason)))
        return planned, waiting

    def check_needs(self) -> None:
        """Raises NotApplicable where a method cannot be pre-trained on a dataset; reads no data."""
        for name in self.suite.pretrain_datasets:
            for method in self.methods.values():
                if method.needs.data:
                    check_needs(method, find(Dataset, self.names[name]))

    def needs(self) -> list[dict[str, str]]:
        """Data sets and images that the cells need, whether they are there, and what to do."""
        found = []
        for name in self.datasets():
            dataset = find(Dataset, name)
            there = ready_already(name, self.roots, self.profile.frame_stride, self.profile.world) is not None
            if dataset.synthetic:
                what = "generated when it is needed" if not there else "SYNTHETIC"
            else:
                what = "" if there else f"bench data prepare {name} --root DIR; "
                what += f"{dataset.licence} (bench data info {name})"
            found.append({"what": f"data: {name}", "state": "prepared" if there else "not prepared", "detail": what})
        if self.executor == "docker":
            found += self._images()
        return found

    def _images(self) -> list[dict[str, str]]:
        from pretrain_bench.harness.executors.engine import connect
        from pretrain_bench.harness.executors.image_contents import TASK
        from pretrain_bench.harness.executors.image_state import state

        client = connect()
        wanted = [m.name for m in self.methods.values() if m.image is None]
        states = {name: state(client, name) for name in [*wanted, TASK]}
        return [
            {"what": f"image: {name}", "state": found, "detail": why or "-"} for name, (found, why) in states.items()
        ]

    def _planner(self, data: dict[str, PreparedDataset]) -> Planner:
        methods = {m.name: m for m in self.methods.values()}
        return Planner(methods, self.tasks, self.budget, self.profile, self.names, data, self.machine)


OWN_METHOD_CAPS = ("wall_seconds", "memory_mib", "disk_mib")
"""What a budget must limit before a container from elsewhere runs under it."""


def resolve_named_suite(suite: str, filters: Iterable[str], choice: RunOverrides) -> ResolvedSuite:
    """A suite by its name or file. Raises WrongUse, EnvironmentCannot."""
    return resolve_suite(find(Suite, suite), parse_filters(filters), choice)


def resolve_suite(suite: Suite, filters: list[Filter], choice: RunOverrides) -> ResolvedSuite:
    """A suite with everything that it names. Raises WrongUse for what does not exist, EnvironmentCannot for a device or
    backend that this machine lacks."""
    for flag, value, allowed in (
        ("--backend", choice.backend, ("torch", "minkowski")),
        ("--device", choice.device, ("auto", "cpu", "cuda")),
        ("--executor", choice.executor, ("local", "docker")),
    ):
        if value not in allowed:
            raise WrongUse(f"{flag} {value!r}: expected one of {', '.join(allowed)}")
    budget, profile = budget_and_profile(suite)
    if choice.backend == "minkowski" and profile.precision == "bf16":
        raise WrongUse(
            f"profile {profile.name!r}: precision bf16, but MinkowskiEngine computes in float32 only; use --backend torch, or a "
            "profile with precision fp32"
        )
    methods = {name: find(Method, name) for name in suite.methods}
    if len({m.name for m in methods.values()}) < len(methods):
        raise WrongUse(f"two methods of one name: {', '.join(m.name for m in methods.values())}")
    for method in methods.values():
        missing = [c for c in OWN_METHOD_CAPS if getattr(budget.pretrain, c) is None]
        if method.image is not None and missing:
            raise WrongUse(
                f"method {method.name!r} is a container of your own and runs within caps only, but budget {budget.name!r} has no "
                f"pretrain.{', pretrain.'.join(missing)}; give --budget a file that `extends: {budget.name}` and sets them"
            )
    tasks = {name: find(Task, name) for name in suite.tasks}
    sources = parse_roots(choice.pretrain_data, "--pretrain-data")
    if len(sources) > 1:
        raise WrongUse(f"--pretrain-data: one pre-training dataset at a time, not {', '.join(sources)}")
    roots = {**parse_roots(choice.data, "--data"), **sources}
    # Before anything is prepared, which may take minutes.
    for name, folder in roots.items():
        if not folder.is_dir():
            raise WrongUse(f"{name}: data root {folder} is not a folder; give the one that holds the official layout")
    if choice.imagenet_weights is not None and not choice.imagenet_weights.is_file():
        raise WrongUse(f"--imagenet-weights {choice.imagenet_weights}: no such file")
    if sources:
        suite = suite.model_copy(update={"pretrain_datasets": tuple(sources)})
    threads = choice.threads or min(os.cpu_count() or 1, MAX_DEFAULT_THREADS)
    # In containers the backend is the images', and a stage without it ends with that message.
    device = usable_device(choice.backend if choice.executor == "local" else "torch", choice.device)
    machine = Machine(threads, choice.backend, device, choice.imagenet_weights)
    said: list[str] = []
    asked = [t.dataset for t in tasks.values()]
    asked += suite.pretrain_datasets if any(m.needs.data for m in methods.values()) else ()
    names = {name: resolve(name, roots, said.append) for name in dict.fromkeys(asked)}
    for name in suite.pretrain_datasets:
        names.setdefault(name, name)
    return ResolvedSuite(
        suite, filters, methods, tasks, budget, profile, machine, roots, names, said, choice.executor
    )  # fmt: skip


def cells_of(
    suite: Suite, budget: Budget, profile: Profile, names: Mapping[str, str], filters: list[Filter]
) -> list[Cell]:
    """The cells of a suite. It may name a method by its folder; cells, as records, have the name that its file gives (`names`).

    Raises WrongUse where there is none.
    """
    cells = list(suite.cells(budget.name, profile.name, filters))
    if not cells:
        raise WrongUse(f"suite {suite.name!r} has no cell that is not excluded")
    return [c if names[c.method] == c.method else c.model_copy(update={"method": names[c.method]}) for c in cells]


def budget_and_profile(suite: Suite) -> tuple[Budget, Profile]:
    """What a suite runs under: the profile is its own, or else its budget's, or else `headline`."""
    budget = find(Budget, suite.budget)
    return budget, find(Profile, suite.profile or budget.default_profile or "headline")


def usable_device(backend: str, device: str) -> str:
    """The device to run on. Raises EnvironmentCannot for a backend or device that this machine lacks."""
    if backend == "minkowski" and importlib.util.find_spec("MinkowskiEngine") is None:
        raise EnvironmentCannot("--backend minkowski: MinkowskiEngine is not installed; use --backend torch")
    # torch takes seconds to load, so it is asked only where a driver has left a device file.
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise EnvironmentCannot("--device cuda: torch finds no CUDA device; use --device cpu, or see `bench doctor`")
