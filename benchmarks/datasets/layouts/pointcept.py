"""Reader of Pointcept's preprocessed folders (spec 3.1): ScanNet, S3DIS and a user's own data.

    {train,val,test}/<scene>/{coord, color, segment20 or segment, instance}.npy      Area_<k>/<room>/...

coord (N, 3) metres, z up; color (N, 3) 0 to 255; segment (N,) or (N, 1), -1 for none; instance likewise. Rooms of an Area are
reduced to one point per 1 cm cell, as the official S3DIS files are. Scenes of `val`, and labelled scenes of `test`, are test
scenes unless the dataset has its own list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import s3dis, value_checks
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.datasets.layouts.arrays import load_array, train_ids
from pretrain_bench.benchmarks.datasets.parts import SceneParts
from pretrain_bench.benchmarks.datasets.writers import save_arrays
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

PARTS = ("train", "val", "test", "Training", "Validation")
PATTERNS = tuple(f"{part}/*/coord.npy" for part in (*PARTS, "Area_*"))
_LABELS = ("segment20.npy", "segment.npy", "segment200.npy")


class SceneArrays(NamedTuple):
    """The folder of a scene, its part (train, val, test or an Area), and its label file if present; `annotated`: whether other
    scenes of the part have labels."""

    folder: Path
    part: str
    labels: Path | None
    annotated: bool

    @property
    def in_area(self) -> bool:
        """Whether it is a room of S3DIS."""
        return self.part.startswith("Area_")


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Map names to scenes, S3DIS rooms by area and room. Raises DataError for the pickles of older versions."""
    refuse(root)
    folders = sorted(path.parent for pattern in PATTERNS for path in root.glob(pattern))
    if not folders:
        raise DataError(
            f"{root}: no Pointcept arrays found; expected {' or '.join(PATTERNS[:2])} or Area_<k>/<room>/coord.npy"
        )
    wanted = ("segment200.npy",) if len(dataset.classes) == 200 else _LABELS[:2]
    labels = {f: next((f / name for name in wanted if (f / name).is_file()), None) for f in folders}
    labelled_parts = {f.parent.name for f, path in labels.items() if path is not None}
    scenes: dict[str, Any] = {}
    for folder, path in labels.items():
        part = folder.parent.name
        name = f"{part}__{folder.name}" if part.startswith("Area_") else folder.name
        if name in scenes:
            raise DataError(f"{folder}: {scenes[name].folder} has this name too; rename one of them")
        scenes[name] = SceneArrays(folder, part, path, part in labelled_parts)
    return scenes


def write(dataset: Dataset, scene: SceneArrays, out: Path, how: Reading) -> dict[str, Any]:
    """Write a labelled cloud."""
    folder = scene.folder
    parts = SceneParts(folder.name, how.strict)
    xyz = load_array(folder / "coord.npy", 3)
    rgb = value_checks.byte_colours(
        [load_array(folder / "color.npy", 3, len(xyz))], [str(folder / "color.npy")], parts.problems
    )
    semantic, instance = None, None
    if scene.labels is not None:
        semantic = train_ids(load_array(scene.labels, rows=len(xyz)), dataset, str(scene.labels))
        instance = _instances(folder / "instance.npy", len(xyz), scene.in_area)
    elif scene.annotated:
        parts.problem(f"{folder / _LABELS[0]}: no such file; scene {folder.name} is left out of tasks")
    cloud = s3dis.checked_cloud(xyz, rgb, semantic, dataset.classes, str(folder / "coord.npy"), parts.problems)
    held: dict[str, Any] = {"test": True} if scene.part in ("val", "test") and semantic is not None else {}
    if scene.in_area:
        cloud, semantic, instance = s3dis.reduced(cloud, semantic, instance, str(folder))
    save_arrays(out / UNLABELLED, xyz=cloud.xyz.astype(np.float32), rgb=cloud.rgb)
    if semantic is not None:
        value_checks.check_labelled(semantic < 255, str(scene.labels), parts.problems)
        save_arrays(out / LABELLED, semantic=semantic, **({} if instance is None else {"instance": instance}))
    return {"points": len(cloud.xyz), **held, "problems": parts.problems}


def refuse(root: Path) -> None:
    """Raise DataError for scenes that older versions of Pointcept wrote as pickles."""
    pickled = next((p for part in PARTS for p in root.glob(f"{part}/*.pth")), None)
    if pickled is not None:
        raise DataError(
            f"{pickled}: a pickle of an old Pointcept, which is never loaded; preprocess with Pointcept 1.5.2 or later, which "
            f"writes {pickled.with_suffix('')}/coord.npy"
        )


def _instances(path: Path, points: int, in_area: bool) -> NDArray[np.int32] | None:
    """Instance numbers (N,) as the official readers give them: for S3DIS the index of the file, else 1 + number, 0 for none."""
    if not path.is_file():
        return None
    numbers = load_array(path, rows=points).astype(np.int32)
    return numbers if in_area else np.maximum(numbers, -1) + 1
