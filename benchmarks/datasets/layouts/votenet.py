"""Reader of VoteNet's dumps of ScanNet and SUN RGB-D (spec 3.9).

    scannet_train_detection_data/<scan>_{vert, sem_label, ins_label, bbox}.npy    vertices along the axes of the boxes
    sunrgbd_pc_bbox_votes_50k_{v1,v2}_{train,val}/NNNNNN_{pc.npz, bbox.npy}        upright depth coordinates, half sizes

Both hold at most 50,000 points per scene, and no pictures. ScanNet's training and validation scans share one folder; the
dataset's lists separate them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import scannet, value_checks
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.datasets.layouts.arrays import load_array
from pretrain_bench.benchmarks.datasets.parts import SceneParts
from pretrain_bench.benchmarks.datasets.splits import listed_scenes
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.datasets.writers import save_arrays
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder

SCANNET_FOLDER = "scannet_train_detection_data"
_VIEWS = re.compile(r"sunrgbd_pc_bbox_votes_50k_(v1|v2)_(train|val)")
PATTERNS = (f"{SCANNET_FOLDER}/*_vert.npy", "scene*_bbox.npy", "sunrgbd_pc_bbox_votes_50k_*/*_pc.npz", "[0-9]*_pc.npz")
TYPES = ("bed", "table", "sofa", "chair", "toilet", "desk", "dresser", "night_stand", "bookshelf", "bathtub")
"""VoteNet's classes of SUN RGB-D, by id."""


class View(NamedTuple):
    """A view of SUN RGB-D: its arrays, and whether it is in the validation folder."""

    cloud: Path
    boxes: Path
    test: bool


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Map names to scans, or numbers to views. Raises DataError if there are none."""
    views = [p for p in (root, *list_folder(root)) if _VIEWS.fullmatch(p.resolve().name) and p.is_dir()]
    versions = {match[1] for p in views if (match := _VIEWS.fullmatch(p.resolve().name))}
    if len(versions) > 1:
        raise DataError(f"{root}: v1 and v2 labels of SUN RGB-D side by side; move v2 away, the benchmark uses v1")
    scans: dict[str, Any] = {}
    for folder in views:
        test = folder.resolve().name.endswith("_val")
        for path in list_folder(folder, "_pc.npz"):
            number = path.name.removesuffix("_pc.npz")
            scans[number] = View(path, folder / f"{number}_bbox.npy", test)
    base = root / SCANNET_FOLDER if (root / SCANNET_FOLDER).is_dir() else root
    for path in list_folder(base, "_vert.npy"):
        scans[path.name.removesuffix("_vert.npy")] = path
    if not scans:
        raise DataError(f"{root}: no VoteNet dump found; expected {' or '.join(PATTERNS[:3])}")
    return scans


def write(dataset: Dataset, source: Path | View, out: Path, how: Reading) -> dict[str, Any]:
    """Write a cloud with its labels and boxes."""
    return (
        _write_view(dataset, source, out)
        if isinstance(source, View)
        else write_scan(dataset, source, "_bbox.npy", out, how)
    )


def write_scan(dataset: Dataset, vertices: Path, boxes_end: str, out: Path, how: Reading) -> dict[str, Any]:
    """Write a scan of ScanNet: a cloud, labels by nyu40 ids, instances from 1, and boxes, each if its file exists. If boxes have
    other axes than the cloud, <scan>_axis_align_matrix.npy gives the transform."""
    name = vertices.name.removesuffix("_vert.npy")
    parts = SceneParts(name, how.strict)
    of_task = name in (listed_scenes(dataset) or (name,))  # the hidden test scans have vertices only
    table = load_array(vertices, 6)
    xyz, rgb = coloured(table, str(vertices), 255, parts.problems)
    held: dict[str, Any] = {"points": len(xyz)}
    labels: dict[str, NDArray] = {}
    semantic, instance, boxes, alignment = (
        vertices.with_name(f"{name}{end}")
        for end in ("_sem_label.npy", "_ins_label.npy", boxes_end, "_axis_align_matrix.npy")
    )
    if semantic.is_file() and instance.is_file():
        nyu40 = load_array(semantic, rows=len(xyz))
        value_checks.check_labelled(nyu40 > 0, str(semantic), parts.problems)
        labels["semantic"] = scannet.train_ids(nyu40.astype(np.int64), dataset.class_ids)
        labels["instance"] = load_array(instance, rows=len(xyz)).astype(np.int32)
    elif of_task:
        parts.problem(f"{semantic} or {instance}: no such file; scene {name} has no labels of points")
    if boxes.is_file():
        rows = load_array(boxes, 7)
        known = np.isin(rows[:, 6], dataset.box_class_ids)
        places = [dataset.box_class_ids.index(int(i)) for i in rows[known, 6]]
        labels["boxes"] = np.c_[rows[known, :6], np.zeros(known.sum()), places].astype(np.float32)
        held["boxes"] = int(known.sum())
        if alignment.is_file():
            matrix = load_array(alignment, 4, 4)
            labels["alignment"] = value_checks.rigid(matrix.astype(np.float64), str(alignment), "the axis alignment")
    elif of_task:
        parts.problem(f"{boxes}: no such file; scene {name} is left out of detection")
    save_arrays(out / UNLABELLED, xyz=xyz, rgb=rgb)
    if labels:
        save_arrays(out / LABELLED, **labels)
    return {**held, "problems": parts.problems}


def coloured(
    table: NDArray[Any], name: str, usual: int, problems: list[Problem], kind: str = "room"
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Split a table (N, 6) into xyz (N, 3) float32 and rgb (N, 3) uint8; `usual` is the usual colour maximum, 1 or 255."""
    rgb = value_checks.byte_colours([table[:, 3:]], [name], problems, usual)
    value_checks.check_colour_spread(rgb, name, problems)
    xyz, _ = value_checks.near_origin(table[:, :3], name, problems)
    value_checks.check_extent(xyz, kind, name, problems)
    return xyz.astype(np.float32), rgb


def _write_view(dataset: Dataset, view: View, out: Path) -> dict[str, Any]:
    """Write a view of SUN RGB-D; boxes are stored with half sizes, and headings in this project's convention."""
    problems: list[Problem] = []
    xyz, rgb = coloured(load_array(view.cloud, 6, key="pc"), str(view.cloud), 1, problems, "view")
    rows = load_array(view.boxes, 8)
    names = [TYPES[int(i)] if 0 <= i < len(TYPES) else "" for i in rows[:, 7]]
    known = np.array([name in dataset.classes for name in names], bool)
    places = [dataset.classes.index(name) for name in names if name in dataset.classes]
    boxes = np.c_[rows[known, :3], 2 * rows[known, 3:6], rows[known, 6], places].astype(np.float32).reshape(-1, 8)
    value_checks.check_boxes(boxes, xyz, str(view.boxes), problems)
    save_arrays(out / UNLABELLED, xyz=xyz, rgb=rgb)
    save_arrays(out / LABELLED, boxes=boxes)
    return {"points": len(xyz), "boxes": len(boxes), "test": view.test, "problems": problems}
