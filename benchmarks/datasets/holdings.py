"""The content of each prepared scene, and the tasks it can serve. A scene that lacks a file is excluded from uses that need it:
missing annotation does not mean "no objects".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, Manifest, SceneEntry
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

_CLOUD = (UNLABELLED, "xyz.npy")
_TASK_FILES: dict[str, tuple[tuple[str, str], ...]] = {
    "semantic": (_CLOUD, (LABELLED, "semantic.npy")),
    "instance": (_CLOUD, (LABELLED, "semantic.npy"), (LABELLED, "instance.npy")),
    "detection": (_CLOUD, (LABELLED, "boxes.npy")),
}
_IN_WORDS = {
    "semantic": "points with class labels",
    "instance": "points with class and instance labels",
    "detection": "points with annotated boxes",
}


def scenes_for_task(manifest: Manifest, scenes: Iterable[str], kind: str) -> tuple[str, ...]:
    """The scenes, in order, that have every file needed to train and score a task of this kind (`semantic`, `instance`,
    `detection`). Raises DataError if none has."""
    listed = tuple(scenes)
    held = tuple(s for s in listed if all(f"{view}/{s}/{file}" in manifest.files for view, file in _TASK_FILES[kind]))
    if listed and not held:
        raise DataError(
            f"dataset {manifest.dataset!r}: none of the {len(listed)} scenes has the files that tasks of kind {kind!r} need: "
            f"{_IN_WORDS[kind]}; `bench data prepare` names the missing files"
        )
    return held


def classes_in(manifest: Manifest, scenes: Iterable[str], kind: str) -> frozenset[int] | None:
    """Ids of the classes present in these scenes: of labelled points, or of boxes for a `detection` task. None for data prepared
    before manifests listed classes."""
    wanted, classes = set(scenes), set()
    for scene in manifest.scenes:
        if scene.name in wanted:
            ids = scene.box_classes if kind == "detection" else scene.point_classes
            if ids is None:
                return None
            classes |= set(ids)
    return frozenset(classes)


def classes_held(folder: Path, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """`point_classes` and `box_classes` for a scene's manifest entry, from the label files in `folder`; a kind of label that the
    scene lacks is omitted."""
    held: dict[str, tuple[int, ...]] = {}
    if (folder / "semantic.npy").is_file():
        counts = np.bincount(np.load(folder / "semantic.npy", allow_pickle=False), minlength=256)
        held["point_classes"] = tuple(int(c) for c in np.nonzero(counts[: len(dataset.classes)])[0])
    if (folder / "boxes.npy").is_file():
        boxes = np.load(folder / "boxes.npy", allow_pickle=False)
        held["box_classes"] = tuple(int(c) for c in np.unique(boxes[:, 7]))
    return held


def left_out_entry(name: str, source: object) -> SceneEntry:
    """The manifest entry of an unreadable scene; `source` is what the layout's `find` returned for it."""
    return SceneEntry(name=name, test=getattr(source, "test", None))
