"""A suite resolved for planning or running: specs loaded, datasets located, device and executor chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.dataset import up_choice
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Filter, Suite
from pretrain_bench.benchmarks.specs.task import DEFAULT_RECIPES, Task
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.process_limits import usable_cpus
from pretrain_bench.benchmarks.support.reading import reading
from pretrain_bench.harness.contract.stage import SparseBackend
from pretrain_bench.harness.executors.choice import AUTO, ENGINES, EXECUTORS
from pretrain_bench.harness.planning.applicable import NotApplicable, check_applicable, check_needs
from pretrain_bench.harness.planning.catalog import available, find, is_path
from pretrain_bench.harness.planning.code_digest import forget_changed_code
from pretrain_bench.harness.planning.imported_method import FORM, check_seeds, with_stated_scenes
from pretrain_bench.harness.planning.label_lists import check_label_files, parse_label_files
from pretrain_bench.harness.planning.planner import Planner, SuiteSpecs
from pretrain_bench.harness.planning.prepared_data import (
    DataSources,
    PreparedDataset,
    ProgressFor,
    check_one_root,
    parse_data_options,
)
from pretrain_bench.harness.planning.recipes import TASK_PREFIX, check_sections, misspelled_sections
from pretrain_bench.harness.planning.stage_specs import (
    Machine,
    PlannedCell,
    PlannedStage,
)
from pretrain_bench.harness.planning.stated_scenes import check_stated, known_datasets, lines_on_stated

if TYPE_CHECKING:
    from docker import DockerClient

MAX_DEFAULT_THREADS = 8


class RunOverrides(NamedTuple):
    """Options of a command in addition to its suite: data, machine, executor, and whether a user's own Python code may run.
    Stages that run `elsewhere` name their device, which this machine may lack."""

    data: Sequence[str] = ()
    pretrain_data: Sequence[str] = ()
    threads: int | None = None
    backend: str = "torch"
    device: str = "auto"
    executor: str = AUTO
    imagenet_weights: Path | None = None
    trust_code: bool = False
    up: str = "auto"
    pretrained_on: Sequence[str] = ()
    label_splits: Sequence[str] = ()
    stand_ins: bool = True
    elsewhere: bool = False


class WaitingCell(NamedTuple):
    """A cell whose stages have no keys yet, and its unprepared datasets, whose content is part of every key.

    `stages` assume the expected size of these datasets; empty if a size is unknown.
    """

    cell: Cell
    datasets: tuple[str, ...]
    stages: tuple[PlannedStage, ...] = ()


class ResolvedSuite(NamedTuple):
    """A suite ready for planning or running. `names` maps requested datasets to those in use."""

    suite: Suite
    filters: list[Filter]
    methods: dict[str, Method]
    tasks: dict[str, Task]
    budget: Budget
    profile: Profile
    machine: Machine
    sources: DataSources
    names: dict[str, str]
    notices: list[str]
    executor: str

    def with_own_images(self, client: DockerClient) -> ResolvedSuite:
        """The suite with the present image ids of users' methods, which are part of their keys."""
        from pretrain_bench.harness.executors.image_state import with_image

        return self._replace(methods={k: with_image(client, m) if m.image else m for k, m in self.methods.items()})

    def cells(self) -> list[Cell]:
        """The cells, with methods and datasets named as in the suite. Raises WrongUse if there are none."""
        names = {asked: method.name for asked, method in self.methods.items()}
        names |= {asked: task.name for asked, task in self.tasks.items()}
        return cells_of(self.suite, self.budget, self.profile, names, self.filters)

    def distinct_cells(self) -> list[Cell]:
        """The cells, each once, with the dataset that its pre-training reads. Raises WrongUse where there is none."""
        return list(self._planner({}).distinct(self.cells()))

    def datasets(self, cells: Iterable[Cell]) -> list[str]:
        """Names of the datasets that these distinct cells read, each once."""
        planner = self._planner({})
        return list(dict.fromkeys(name for cell in cells for name in planner.reads(cell)))

    def prepare(self, strict: bool, progress: ProgressFor, say: Callable[[str], None]) -> list[PlannedCell]:
        """Prepare every dataset, then plan every cell. Raises WrongUse for an impossible request."""
        cells = self.distinct_cells()
        data = {name: self.sources.prepare(name, strict, progress, say) for name in self.datasets(cells)}
        planner = self._planner(data)
        planned = [planner.plan_cell(cell) for cell in cells]
        for line in lines_on_stated(planned, known_datasets(self.sources.own)):
            say(line)
        return planned

    def plan_prepared(self) -> tuple[list[PlannedCell], list[WaitingCell]]:
        """Plan the cells whose data are prepared or that are n/a with any data, and list the others as waiting."""
        cells = self.distinct_cells()
        specs = {name: self.sources.dataset(name) for name in self.datasets(cells)}
        data = {name: prepared for name in specs if (prepared := self.sources.prepared(name)) is not None}
        planner = self._planner(data)
        unprepared = {name: self.sources.expected(name) for name in specs if name not in data}
        expecting = self._planner({**data, **{name: e for name, e in unprepared.items() if e is not None}})
        planned, waiting = [], []
        for cell in cells:
            missing = tuple(name for name in planner.reads(cell) if name not in data)
            if not missing:
                planned.append(planner.plan_cell(cell))
                continue
            method, task = planner.specs.methods[cell.method], planner.specs.tasks[cell.task]
            try:
                source, target = specs.get(cell.pretrain_dataset), specs[self.names[task.dataset]]
                check_applicable(method, source, task, target, cell.protocol)
                known = all(unprepared[name] is not None for name in missing)
                waiting.append(WaitingCell(cell, missing, tuple(expecting.stages(cell)) if known else ()))
            except NotApplicable as reason:
                planned.append(PlannedCell(cell, (), str(reason)))
        self.notices.extend(lines_on_stated(planned, known_datasets(self.sources.own)))
        return planned, waiting

    def check_needs(self) -> None:
        """Raises NotApplicable if a method cannot be pre-trained on a dataset; reads no data."""
        for name in self.suite.pretrain_datasets:
            for method in self.methods.values():
                if method.needs.data:
                    check_needs(method, self.sources.dataset(self.names[name]))

    def needs(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """Datasets and images that these distinct cells need: `what`, `state`, `bytes` in the cache (None: unknown), and what to
        do."""
        rows = []
        for name in self.datasets(cells):
            dataset = self.sources.dataset(name)
            held = self.sources.prepared(name)
            is_prepared, size = held is not None, self.sources.bytes_of(name, held)
            if dataset.synthetic:
                what = "generated when it is needed" if not is_prepared else "SYNTHETIC"
            else:
                what = "" if is_prepared else f"{self.sources.how_to_prepare(name)}; "
                what += dataset.licence if name in self.sources.own else f"{dataset.licence} (bench data info {name})"
            rows.append(
                {
                    "what": f"data: {name}",
                    "state": "prepared" if is_prepared else "not prepared",
                    "bytes": size,
                    "detail": what,
                }
            )
        if self.executor in ENGINES:
            rows += self._images()
        return rows

    def _images(self) -> list[dict[str, Any]]:
        from pretrain_bench.harness.executors.engine import connect
        from pretrain_bench.harness.executors.image_contents import TASK
        from pretrain_bench.harness.executors.image_state import state

        client = connect(self.executor)
        wanted = list(dict.fromkeys(m.code_of for m in self.methods.values() if m.image is None))
        states = {name: state(client, name) for name in [*wanted, TASK]}
        return [
            {"what": f"image: {name}", "state": found, "bytes": 0, "detail": why or "-"}
            for name, (found, why) in states.items()
        ]

    def _planner(self, data: dict[str, PreparedDataset]) -> Planner:
        methods, tasks = {m.name: m for m in self.methods.values()}, {t.name: t for t in self.tasks.values()}
        return Planner(SuiteSpecs(methods, tasks, self.budget, self.profile), self.names, data, self.machine)


OWN_METHOD_CAPS = ("wall_seconds", "memory_mib", "disk_mib")
"""Limits that a budget must set before it can run a user's container."""


def resolve_suite(suite: Suite, filters: list[Filter], overrides: RunOverrides) -> ResolvedSuite:
    """Resolve everything that a suite names. Raises WrongUse for missing items, and EnvironmentCannot for a device or backend
    that this machine lacks."""
    forget_changed_code()
    budget, profile = budget_and_profile(suite)
    _check_overrides(overrides, profile)
    methods = {name: find(Method, name) for name in suite.methods}
    _check_distinct("method", methods)
    methods = with_stated_scenes(methods, overrides.pretrained_on)
    for method in methods.values():
        _check_own_method(method, budget, overrides)
    check_sections(profile, {m.name: m for m in methods.values()})
    tasks = {name: _find_task(name) for name in suite.tasks}
    _check_distinct("task", tasks)
    sources, pretrain_names = _data_sources(overrides, profile)
    check_stated(methods.values(), known_datasets(sources.own))
    if pretrain_names:
        suite = suite.model_copy(update={"pretrain_datasets": pretrain_names})
    threads = overrides.threads or min(usable_cpus(), MAX_DEFAULT_THREADS)
    # In containers the image provides the backend; a stage in an image without it ends with that message.
    device = overrides.device
    if not overrides.elsewhere:
        device = usable_device("torch" if overrides.executor in ENGINES else overrides.backend, device)
    label_files = parse_label_files(overrides.label_splits, suite.label_ratios)
    machine = Machine(threads, overrides.backend, device, overrides.imagenet_weights, label_files)
    notices = [
        *check_label_files(suite.label_ratios, label_files),
        *_notices_of_backend(overrides.backend, device),
        *check_seeds(methods.values(), suite.pretrain_seeds),
        *misspelled_sections(profile, methods.values()),
    ]
    asked = [t.dataset for t in tasks.values()]
    asked += suite.pretrain_datasets if any(m.needs.data for m in methods.values()) else ()
    names = {name: sources.resolve(name, notices.append) for name in dict.fromkeys(asked)}
    _check_roots({n: sources.roots[n] for n in (*names.values(), *pretrain_names) if n in sources.roots})
    for name in suite.pretrain_datasets:
        names.setdefault(name, name)
    return ResolvedSuite(
        suite, filters, methods, tasks, budget, profile, machine, sources, names, notices, overrides.executor
    )  # fmt: skip


def _check_overrides(overrides: RunOverrides, profile: Profile) -> None:
    for flag, value, allowed in (
        ("--backend", overrides.backend, get_args(SparseBackend)),
        ("--device", overrides.device, ("auto", "cpu", "cuda")),
        ("--executor", overrides.executor, EXECUTORS),
    ):
        if value not in allowed:
            raise WrongUse(f"{flag} {value!r}: expected one of {', '.join(allowed)}")
    if overrides.backend == "minkowski" and profile.precision == "bf16":
        raise WrongUse(
            f"profile {profile.name!r}: precision bf16, but MinkowskiEngine computes in float32 only; use --backend torch, or a "
            "profile with precision fp32"
        )
    if overrides.imagenet_weights is not None and not overrides.imagenet_weights.is_file():
        raise WrongUse(f"--imagenet-weights {overrides.imagenet_weights}: no such file")


def _notices_of_backend(backend: str, device: str) -> list[str]:
    """A line where the Triton kernels of a backend cannot run."""
    if backend == "triton" and device == "cpu":
        return [
            "--backend triton: without a GPU, torch computes the products; records note it (numerics: sparse_products)"
        ]
    return []


def _check_distinct(what: str, specs: Mapping[str, Method | Task]) -> None:
    names = [s.name for s in specs.values()]
    if len(set(names)) < len(names):
        raise WrongUse(f"two {what}s have the same name: {', '.join(names)}")


def _check_own_method(method: Method, budget: Budget, overrides: RunOverrides) -> None:
    """Raises WrongUse if a method that needs a user's file or code cannot run with these options."""
    if any(stage.checkpoint for stage in method.stages) and not method.checkpoints:
        raise WrongUse(f"method {method.name!r} needs checkpoints and a name of yours: --method {FORM}")
    check_trusted(method, overrides.trust_code)
    if method.image is not None:
        missing = [c for c in OWN_METHOD_CAPS if getattr(budget.pretrain, c) is None]
        if missing:
            raise WrongUse(
                f"method {method.name!r} is a container of your own and runs within caps only, but budget {budget.name!r} has no "
                f"pretrain.{', pretrain.'.join(missing)}; give --budget a file that `extends: {budget.name}` and sets them"
            )
        return
    check_executor(method, overrides.executor)


def check_executor(method: Method, executor: str) -> None:
    """Raises WrongUse for a user's method that an executor cannot run: a container in processes, or Python in containers."""
    if method.image is not None and executor not in ENGINES:
        raise WrongUse(f"method {method.name!r} is a container of your own; run it with --executor docker or podman")
    if method.is_own_python and executor in ENGINES:
        raise WrongUse(
            f"method {method.name!r} is Python code from outside this project, which containers do not include; run it with "
            "--executor bubblewrap or local, or give it an image (image: in its method.yaml)"
        )


def check_trusted(method: Method, trust_code: bool) -> None:
    """Raises WrongUse for Python of a user's folder that would run here, unless --trust-code is given."""
    if trust_code or method.origin not in ("folder", "image"):
        return
    if method.origin == "folder":
        raise WrongUse(
            f"method {method.name!r} is Python code from {method.folder}; it runs as you, without isolation; add --trust-code if "
            "you trust it"
        )
    if any(stage.recipe and not stage.recipe.startswith(TASK_PREFIX) for stage in method.stages):
        raise WrongUse(
            f"method {method.name!r}: planning imports {method.folder}/recipe.py, which runs as you, outside its container; "
            "add --trust-code if you trust it"
        )


def _find_task(name: str) -> Task:
    task = find(Task, name)
    if is_path(name) and task.name in available(Task):
        raise WrongUse(f"{name}: name: {task.name!r} is a shipped task; choose another name")
    if is_path(name) and task.recipe is None:
        return task.model_copy(update={"recipe": DEFAULT_RECIPES[task.kind]})
    return task


def _data_sources(overrides: RunOverrides, profile: Profile) -> tuple[DataSources, tuple[str, ...]]:
    """The data sources, and the pre-training dataset given by --pretrain-data, if any."""
    roots, own = parse_data_options(overrides.data, "--data")
    pretrain_roots, pretrain_own = parse_data_options(overrides.pretrain_data, "--pretrain-data")
    if len(pretrain_roots) > 1:
        raise WrongUse(f"--pretrain-data: one pre-training dataset at a time, not {', '.join(pretrain_roots)}")
    for name, root in pretrain_roots.items():
        check_one_root(name, ("--data", roots.get(name, root)), ("--pretrain-data", root))
    all_roots = {**roots, **pretrain_roots}
    sources = DataSources(
        all_roots,
        {**own, **pretrain_own},
        profile.frame_stride,
        profile.world,
        up=up_choice(overrides.up),
        stand_ins=overrides.stand_ins,
    )
    sources.check_up(list(all_roots))
    return sources, tuple(pretrain_roots)


def _check_roots(roots: Mapping[str, Path]) -> None:
    """Raises WrongUse for a root that is not a folder, before preparation, which may take minutes. `roots` are those of
    datasets in use, since `bench.yaml` may name an absent disk."""
    for name, folder in roots.items():
        with reading(folder):
            is_folder = folder.is_dir()
        if not is_folder:
            raise WrongUse(
                f"{name}: data root {folder} is not a folder; give the one that holds a supported layout (docs/own-data.md)"
            )


def cells_of(
    suite: Suite, budget: Budget, profile: Profile, names: Mapping[str, str], filters: list[Filter]
) -> list[Cell]:
    """The cells of a suite. The suite may name methods and tasks by path; cells, like records, use the names in their files
    (`names`).

    Raises WrongUse if there are none.
    """
    cells = list(suite.cells(budget.name, profile.name, filters, names))
    if not cells:
        raise WrongUse(
            f"suite {suite.name!r} excludes every cell" + " that --only selects; drop an --only" * bool(filters)
        )

    if all(asked == name for asked, name in names.items()):
        return cells
    return [c.copy_with(method=names.get(c.method, c.method), task=names.get(c.task, c.task)) for c in cells]


def budget_and_profile(suite: Suite) -> tuple[Budget, Profile]:
    """Budget and profile of a suite: the profile is its own, else its budget's, else `headline`."""
    budget = find(Budget, suite.budget)
    return budget, find(Profile, suite.profile or budget.default_profile or "headline")


def usable_device(backend: str, device: str) -> str:
    """The device to run on. Raises EnvironmentCannot for a backend or device that this machine lacks."""
    if backend == "minkowski" and importlib.util.find_spec("MinkowskiEngine") is None:
        raise EnvironmentCannot("--backend minkowski: MinkowskiEngine is not installed; use --backend torch")
    # torch takes seconds to load, so it is queried only if a driver's device file exists.
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise EnvironmentCannot("--device cuda: torch finds no CUDA device; use --device cpu, or see `bench doctor`")
