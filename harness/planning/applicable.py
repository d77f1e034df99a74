"""Find inapplicable cells (n/a in a plan), whose method, dataset, task or protocol lacks something."""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.holdings import classes_in
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.probes import FINETUNE, Protocol
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.prepared_data import PreparedDataset

NEEDED = ("frames", "images", "poses", "multiple_views", "clouds", "labels")


class NotApplicable(WrongUse):
    """An inapplicable cell (n/a in a plan), with the reason."""


def check_needs(method: Method, dataset: Dataset) -> None:
    """Raises NotApplicable, naming the missing input, if a method cannot be pre-trained on a dataset."""
    needs = {n for n in NEEDED if getattr(method.needs, n)}
    missing = sorted(needs - set(dataset.provides))
    if missing:
        card = LAYOUTS[dataset.layout]
        lacks = f"; {card.title}: {card.lacks}" if card.lacks else ""
        raise NotApplicable(
            f"method {method.name!r} needs {', '.join(missing)}, which dataset {dataset.name!r} does not have "
            f"(it has {', '.join(dataset.provides)}{lacks})"
        )


def check_held(method: Method, source: PreparedDataset, scenes: tuple[str, ...]) -> None:
    """Raises NotApplicable, naming the missing input, if these prepared data lack an optional input of their dataset:
    recordings without poses, scans without pictures."""
    framed = [s for s in source.manifest.scenes if s.frames and s.name in scenes]
    lacking = {"frames", "images"} if not framed else set()
    if all(s.up is not None for s in framed):
        lacking |= {"poses", "multiple_views"}
    missing = sorted(n for n in lacking if getattr(method.needs, n))
    if missing:
        raise NotApplicable(
            f"method {method.name!r} needs {', '.join(missing)}, which none of the {len(scenes)} scenes of "
            f"{source.dataset.name!r} to pre-train on has; "
            "docs/data.md lists the files that provide them"
        )


def check_classes(
    source: PreparedDataset, scenes: tuple[str, ...], kind: str, part: str, of_task: tuple[str, ...] = ()
) -> None:
    """Raises NotApplicable if no label of the `part` scenes is of an evaluated class (`of_task`, if the task names its
    classes): without one, nothing can be learnt or scored."""
    dataset = source.dataset
    shown = classes_in(source.manifest, scenes, kind)
    names = dataset.detected_classes if kind == "detection" else dataset.classes
    counted = set(dataset.thing_classes if kind == "instance" else names)
    counted &= set(of_task or counted)
    if shown is None or any(names[i] in counted for i in shown):
        return
    what = {"semantic": "labelled point", "instance": "labelled point of a class with instances", "detection": "box"}[
        kind
    ]
    raise NotApplicable(
        f"dataset {dataset.name!r}: none of the {len(scenes)} {part} scenes has a {what}; check that not all labels are ignored, "
        f"and that their classes include {', '.join(sorted(counted)[:3])}, ...: `bench data info` counts the classes"
    )


def check_applicable(
    method: Method, source: Dataset | None, task: Task, target: Dataset, protocol: Protocol = FINETUNE
) -> None:
    """Raises NotApplicable, with the reason, for an inapplicable cell; reads no data. `source` is the pre-training dataset,
    `target` the fine-tuning dataset."""
    if protocol != FINETUNE and task.kind != "semantic":
        raise NotApplicable(
            f"protocol {protocol!r}: task {task.name!r} is of kind {task.kind}; only semantic tasks are probed, whose head is "
            "one layer on the backbone's features; use --protocol finetune for it"
        )
    if source is not None:
        check_needs(method, source)
        if method.needs.labels and source.name == target.name:
            raise NotApplicable(
                f"n/a: {method.name!r} pre-trains on the labels of {target.name!r}, which task {task.name!r} fine-tunes on"
            )
    if task.kind == "detection" and "boxes" not in target.provides:
        raise NotApplicable(f"dataset {target.name!r} has no boxes; it has {', '.join(target.provides)}")
