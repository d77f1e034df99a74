"""Summarise a folder of data, and draft the dataset and task files for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain_bench.benchmarks.datasets import s3dis, scannet, semantickitti, sunrgbd
from pretrain_bench.benchmarks.datasets.layouts import pointcept
from pretrain_bench.benchmarks.datasets.layouts.arrays import load_array
from pretrain_bench.benchmarks.datasets.layouts.registry import READERS, detect
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS, LayoutCard, LayoutName
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import decode, list_folder, read_text

MOST_SCENES_COUNTED = 50
VOXEL_METRES, LASER_VOXEL_METRES = 0.05, 0.1
STUFF = ("ceiling", "floor", "wall")


class Description(NamedTuple):
    """Summary of a folder: its layout, scene names, and classes with a count for each (annotation files, objects or points).
    Classes are names, or ids in layouts whose files have no names."""

    root: Path
    layout: LayoutName
    scenes: tuple[str, ...]
    classes: Mapping[str | int, int]

    @property
    def card(self) -> LayoutCard:
        """The description of this layout."""
        return LAYOUTS[self.layout]

    @property
    def stands_for(self) -> str | None:
        """The shipped dataset that these folders belong to; None for a user's own data."""
        if self.layout == "pointcept":
            in_areas = all(scene.startswith("Area_") for scene in self.scenes)
            of_scannet = all(re.fullmatch(r"scene\d{4}_\d{2}", scene) for scene in self.scenes)
            return "s3dis" if in_areas else "scannet" if of_scannet else None
        if self.layout in ("votenet", "mmdetection3d"):
            kinds = {"Area_": "s3dis", "scene": "scannet"}
            return next((name for start, name in kinds.items() if self.scenes[0].startswith(start)), "sunrgbd")
        if self.layout == "s3dis":
            return self.layout if all(scene.startswith("Area_") for scene in self.scenes) else None
        return (self.card.stands_for or (self.layout,))[0]


def describe(root: Path, count: bool = True) -> Description:
    """Detect the layout of a folder and list its scenes; with `count` also its classes, from at most MOST_SCENES_COUNTED scenes.
    Raises DataError if it has no supported layout."""
    layout = detect(root)
    draft = Dataset.model_validate({"name": "draft", "layout": layout})
    sources = READERS[layout].find(draft, root)
    names = sorted(sources)
    step = -(-len(names) // MOST_SCENES_COUNTED)
    classes: Counter[str | int] = Counter()
    if count and layout in _COUNTERS:
        for name in names[::step]:
            classes.update(_COUNTERS[layout](sources[name]))
    return Description(root, layout, tuple(names), dict(sorted(classes.items(), key=_in_order)))


def _in_order(counted: tuple[str | int, int]) -> tuple[int, str]:
    return (counted[0], "") if isinstance(counted[0], int) else (0, counted[0])


def dataset_text(described: Description, name: str) -> str:
    """Draft a commented dataset file for the folder."""
    lines = [
        f"# {described.card.title}: {len(described.scenes)} scenes. Check each line; docs/own-data.md explains them.",
        f"name: {name}",
        f"layout: {described.layout}",
    ]
    if described.classes:
        lines += _class_lines(described)
        tested = _guess_test_scenes(described.scenes)
        lines += [
            "# Scenes, or folders of scenes, reserved for testing: a guess. The name of a text file with one per line works too.",
            f"test_scenes: [{', '.join(map(_quoted, tested))}]",
        ]
    lines += _sensor_lines(described)
    lines += ["source: your own data", "licence: not stated"]
    return "\n".join(lines) + "\n"


def task_text(described: Description, dataset: str) -> str | None:
    """Draft a semantic task on that dataset; None if the folder has no point labels."""
    if not described.classes or "labels" not in described.card.provides:
        return None
    laser = described.layout == "semantickitti"
    lines = [f"name: {dataset}-sem", "kind: semantic", f"dataset: {dataset}"]
    lines += [f"voxel_metres: {LASER_VOXEL_METRES if laser else VOXEL_METRES}"]
    lines += ["recipe: kitti-sem", "headline_metric: miou_point"] if laser else []
    return "\n".join(lines) + "\n"


def _class_lines(described: Description) -> list[str]:
    named = all(isinstance(key, str) for key in described.classes)
    unit = "files" if described.layout == "s3dis" else "objects" if named else "points"
    lines = ["# In the order of their ids. Delete classes that should not be learnt: their points become unlabelled."]
    if not named:
        lines = ["# Names for the ids below, in order. Delete a name and its id to make its points unlabelled."]
    lines.append("classes:")
    lines += [
        f"  - {_quoted(str(key)) if named else f'class_{key}'}  # {count:,} {unit}{'' if named else f' of id {key}'}"
        for key, count in described.classes.items()
    ]
    if not named:
        lines.append(f"class_ids: [{', '.join(map(str, described.classes))}]")
    stuff = [name for name in STUFF if name in described.classes]
    if stuff:
        lines += ["# Classes without instances.", f"stuff_classes: [{', '.join(map(_quoted, stuff))}]"]
    return lines


def _quoted(name: str) -> str:
    """A name as YAML text, quoted if it would otherwise parse as a number, a boolean or a structure."""
    plain = re.fullmatch(r"[A-Za-z][\w .-]*\w", name) and name.lower() not in ("true", "false", "null")
    return name if plain else json.dumps(name)


def _sensor_lines(described: Description) -> list[str]:
    if not described.card.up_is_open:
        return []
    lines = ["# How the recordings were made, if their files do not tell:", "# sensor:"]
    lines += ["#   camera: {width: 640, height: 480, fx: 525, fy: 525, cx: 319.5, cy: 239.5}"]
    lines += ["#   depth_per_metre: 1000", '#   up: "+z"']
    return lines


def _guess_test_scenes(scenes: tuple[str, ...]) -> list[str]:
    """Guess test scenes: Area_5, or the last of several folders of scenes, or the last fifth of the scenes."""
    folders = sorted({scene.partition("__")[0] for scene in scenes if "__" in scene})
    if "Area_5" in folders and len(folders) > 1:
        return ["Area_5"]
    return folders[-1:] if len(folders) > 1 else list(scenes[-max(1, len(scenes) // 5) :])


def _annotation_files(folder: Path) -> Counter[str | int]:
    return Counter(s3dis.class_of_file(path) for path in list_folder(folder, ".txt"))


def _categories(source: scannet.SceneSource) -> Counter[str | int]:
    path = source.folder / f"{source.folder.name}.aggregation.json"
    if not path.is_file():
        return Counter()
    try:
        return Counter(str(group["label"]) for group in json.loads(decode(path.read_bytes(), path))["segGroups"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: expected segGroups with labels, as in ScanNet's aggregation files") from None


def _box_classes(source: Any) -> Counter[str | int]:
    if not isinstance(source, sunrgbd.Prepared) or not source.labels.is_file():
        return Counter()
    return Counter(line.split()[0] for line in read_text(source.labels).splitlines() if line.strip())


def _ids(values: np.ndarray) -> Counter[str | int]:
    ids, counts = np.unique(values.astype(np.int64), return_counts=True)
    return Counter({int(i): int(n) for i, n in zip(ids, counts, strict=True) if i >= 0})


def _scan_ids(scan: semantickitti.ScanPaths) -> Counter[str | int]:
    if scan.labels is None:
        return Counter()
    return _ids(semantickitti.read_labels(scan.labels, scan.labels.stat().st_size // 4)[0])


def _scene_ids(scene: pointcept.SceneArrays) -> Counter[str | int]:
    return Counter() if scene.labels is None else _ids(load_array(scene.labels))


_COUNTERS: dict[LayoutName, Callable[[Any], Counter[str | int]]] = {
    "s3dis": _annotation_files,
    "scannet": _categories,
    "sunrgbd": _box_classes,
    "semantickitti": _scan_ids,
    "pointcept": _scene_ids,
    "stanford-indoor3d": lambda path: _ids(load_array(path, 7)[:, 6]),
}
