"""Reading runs: a tidy frame of all fine-tunings, a list of all runs, or one run in full."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.planning import title_of
from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS, SHOWN, TITLES
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.store.spec_reader import SpecReader
from pretrain_bench.harness.store.store import LOG, RECORD, read_record, read_spec

if TYPE_CHECKING:
    import pandas as pd

_FACTS = {
    "key": "key of the fine-tuning run; `bench show KEY` shows it in full",
    "task": "the task that was evaluated",
    "dataset": "the dataset that was fine-tuned and tested on",
    "synthetic": "whether that dataset is procedural; such scores say nothing about real scenes",
    "label_ratio": "the labels that could be used: `100%`, `5%`, `20points` or `4boxes` of each scene, or an official list",
    "label_percent": "the same as a percentage of the training scenes; NaN for points, boxes and official lists",
    "budget": "name of the budget",
    "profile": "name of the profile",
    "protocol": "how the backbone was evaluated: `finetune`, `linear` or `decoder`, with options that are not the default",
    "conditions": "hash of everything else that must be equal for runs to be compared: recipe, limits, network, data, split and "
    "code of the evaluation",
    "family": "as `conditions`, without the label ratio",
    "method": "the pre-training method",
    "pretrain_dataset": "the dataset that was pre-trained on; `none` for methods that read none",
    "pretraining": "hash of the pre-training stages without their seeds; equal hashes mean pre-trained in the same way",
    "imported": "sha256 and origin of an imported checkpoint, of whose pre-training nothing is known (`pretrain_steps` and "
    "the like are NaN); empty for methods that were trained here",
    "row": "printed name of the method in every table: with the dataset or the hash where the name alone is ambiguous",
    "pretrain_seed": "seed of the pre-training (for `scratch`: of the initial weights)",
    "finetune_seed": "seed of the fine-tuning",
    "outcome": "`ok`, or how the run failed",
    "message": "why it failed; empty for most runs that are `ok`",
    "attempt": "number of the attempt that counts, from 1",
    "metric": "the metric that the task is judged by, such as `miou_voxel`",
    "score_final": "that metric after the last step, from 0 to 1; NaN where it could not be computed",
    "score_selected": "that metric of the checkpoint that was best on held-out training scenes",
    "score_best": "that metric of the checkpoint that was best on the test split, as papers report it",
    "checkpoint": "the checkpoint that reports use: `selected` if every run of the family has it, else `final`",
    "pretrain_keys": "keys of the pre-training runs behind this run",
    "pretrain_stages": "hash of each of these stages without its seed",
    "pretrain_steps": "optimizer steps of the pre-training, over all its stages",
    "finetune_steps": "optimizer steps of the fine-tuning",
    "pretrain_synthetic": "whether any pre-training stage read procedural data",
    "train_scenes": "training scenes of the fine-tuning",
    "held_out_scenes": "training scenes that select a checkpoint",
    "test_scenes": "scenes that are scored",
    "part_of_test_split": "the same in words if they are only a part of the test split, else empty",
    "contamination": "what the pre-training saw of the test scenes: `none`, `places` (another scan of a tested room or drive), "
    "`scenes`, `labels`, or `unknown` for weights from elsewhere",
    "contamination_mark": "the same in words, with the training scenes whose labels it saw; empty if it saw no scene or label",
    "mean_over": "classes that the score is the mean of",
    "voxel_metres": "voxel size of the fine-tuning, in metres",
    "network_width": "factor of the channels of the network; 1 is full size",
    "published_as": "the name of this method in the paper, and which ablation of the paper's draft it is, if any",
    "pretrain_samples": "samples of the pre-training",
    "finetune_samples": "samples of the fine-tuning",
    "pretrain_flops": "FLOPs of the pre-training",
    "finetune_flops": "FLOPs of the fine-tuning",
    "pretrain_uniformity": "`exactly` or `at_most`: how the budget's pre-training half is uniform",
    "finetune_uniformity": "the same of its fine-tuning half",
    "pretrain_amount": "amount that the pre-training may use, in `pretrain_currency`",
    "finetune_amount": "amount that the fine-tuning may use, in `finetune_currency`",
    "pretrain_currency": "currency of the pre-training",
    "finetune_currency": "currency of the fine-tuning",
    "pretrain_labels": "labels that the pre-training read",
    "finetune_labels": "labels that the fine-tuning read",
    "pretrain_cpu_seconds": "CPU seconds of the pre-training",
    "finetune_cpu_seconds": "CPU seconds of the fine-tuning",
    "pretrain_gpu_seconds": "GPU seconds of the pre-training; 0 on a CPU",
    "finetune_gpu_seconds": "GPU seconds of the fine-tuning; 0 on a CPU",
    "pretrain_gpu_joules": "energy of the GPUs during the pre-training; NaN where it was not measured",
    "finetune_gpu_joules": "energy of the GPUs during the fine-tuning; NaN where it was not measured",
    "features_key": "key of the features that a linear probe was fitted to, which probes at other ratios share; else empty",
    "features_cpu_seconds": "CPU seconds of these features",
    "features_gpu_seconds": "GPU seconds of these features",
    "features_gpu_joules": "energy of the GPUs during these features; NaN where it was not measured",
    "pretrain_notes": "notes of the pre-training stages, as pairs of name and text",
    "peak_memory_mib": "largest memory of any of the stages, in MiB",
}
JUDGED = ("selected", "final")
"""Checkpoints that reports judge by: the first that a run has."""
_METRICS = {name: title for shown in SHOWN.values() for name, title in shown.items()}
_MOMENTS = dict(
    zip(CHECKPOINTS, ("after the last step", "best on held-out scenes", "best on the test split"), strict=True)
)
RUN_COLUMNS: dict[str, str] = {
    **_FACTS,
    **{
        f"{name}_{checkpoint}": f"{title}, {moment}, from 0 to 1"
        for name, title in _METRICS.items()
        for checkpoint, moment in _MOMENTS.items()
    },
}
"""Columns of `load_runs`, each with its meaning."""


def load_runs(runs: Runs = "runs") -> pd.DataFrame:
    """One row per fine-tuning run, failed ones included, with the cost of its pre-training; `RUN_COLUMNS` explains the columns.

    Raises WrongUse where the folder does not exist or a record cannot be read.
    """
    from pretrain_bench.reports.analysis.frame import load

    return load(open_runs(runs)).runs.reindex(columns=list(RUN_COLUMNS))


class ListedRun(NamedTuple):
    """One run, pre-training or fine-tuning, as a list shows it."""

    record: Record
    title: str
    seed: int | None
    """The seed of a pre-training; None for a fine-tuning, whose cell has both, and where the spec is damaged."""
    metric: str | None
    """The headline metric of the run's task; None if the run has no score."""
    score: float | None
    """Its value that reports judge, from 0 to 1: of the `checkpoint`."""
    checkpoint: str | None = None
    """`selected`, or `final` where no training scene was held out."""
    budget: str | None = None
    """Name of the budget; None where the spec is damaged."""


class Run(NamedTuple):
    """One run in full: its folder and record, and its spec on request."""

    folder: Path
    record: Record
    in_bundle: bool = False
    """Whether the folder belongs to an unpacked bundle, into which nothing is written."""

    @property
    def spec(self) -> StageSpec:
        """Everything that decides the result. Raises WrongUse where the file is missing or damaged."""
        return read_spec(self.folder)

    @property
    def log(self) -> Path:
        """The file with the stage's output, tracebacks included."""
        return self.folder / LOG


def list_runs(runs: Runs = "runs") -> list[ListedRun]:
    """Every run that has a record, oldest first. Runs that cannot be read are left out; `unreadable_runs` names them."""
    return sorted(iterate_runs(runs), key=lambda one: one.record.started_at)


def iterate_runs(runs: Runs = "runs") -> Iterator[ListedRun]:
    """The runs of `list_runs`, sorted by key: one at a time, since a store may hold 50,000."""
    store, specs = open_runs(runs), SpecReader()
    for record in store.records():
        yield _listed(record, store.folder(record.kind, record.key), specs)


def find_run(key: str, runs: Runs = "runs") -> Run:
    """The run whose key starts with `key`. Raises WrongUse where none or several do."""
    store = open_runs(runs)
    folder = store.find(key)
    return Run(folder, read_record(folder / RECORD), store.bundle is not None)


def as_run(run: Run | str, runs: Runs) -> Run:
    """A run itself, or the run in `runs` whose key starts with a text. Raises WrongUse as `find_run`."""
    return run if isinstance(run, Run) else find_run(run, runs)


def listed(run: Run) -> ListedRun:
    """A run as a list shows it."""
    return _listed(run.record, run.folder, SpecReader())


def _listed(record: Record, folder: Path, specs: SpecReader) -> ListedRun:
    cell = record.cell
    if cell is None:
        seed, budget = _seed_and_budget(folder, specs)
        return ListedRun(record, f"{record.method}/{record.stage}", seed, None, None, None, budget)
    metric = _headline(record) if record.metrics else None
    scores = {c: record.metrics.get(f"{metric}_{c}") for c in JUDGED}
    checkpoint = next((c for c in JUDGED if scores[c] is not None), JUDGED[-1]) if metric else None
    score = scores[checkpoint] if checkpoint else None
    return ListedRun(record, title_of(cell), None, metric, score, checkpoint, cell.budget)


def _seed_and_budget(folder: Path, specs: SpecReader) -> tuple[int | None, str | None]:
    """Seed and budget from a run's spec. Lists include runs with a damaged spec; showing such a run reports the
    damage."""
    try:
        spec = specs.read(folder).spec
    except WrongUse:
        return None, None
    return spec.seed, spec.limits.budget


def _headline(record: Record) -> str:
    known = _headline_of(record.cell.task) if record.cell else None
    return known or next((n for n in TITLES if f"{n}_final" in record.metrics), "miou_voxel")


@cache
def _headline_of(task: str) -> str | None:
    """The metric that a task is judged by; None for a user's own task whose file is not here."""
    try:
        return find(Task, task).headline_metric
    except BenchError:
        return None
