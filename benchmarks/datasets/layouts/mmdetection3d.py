"""Reader of the arrays that MMDetection3D produces from ScanNet and S3DIS (spec 3.10).

    scannet_instance_data/<scan>_{vert, sem_label, ins_label, aligned_bbox, axis_align_matrix}.npy    vertices are not aligned
    s3dis_data/Area_<k>_<room>_{point, sem_label, ins_label}.npy                                     minimum at the origin

`*_infos_*.pkl` are pickles, which are never loaded; points/*.bin repeat the same numbers. For SUN RGB-D the labels exist only as
pickles: use the sunrgbd_trainval folder with layout `sunrgbd` instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_bench.benchmarks.datasets import s3dis, value_checks
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.datasets.layouts.arrays import load_array, train_ids
from pretrain_bench.benchmarks.datasets.layouts.votenet import write_scan
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.datasets.writers import save_arrays
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder

SCANNET_FOLDER, S3DIS_FOLDER = "scannet_instance_data", "s3dis_data"
_ROOM = re.compile(r"(Area_\d+)_([A-Za-z]+_\d+)_point\.npy")
PATTERNS = (
    f"{SCANNET_FOLDER}/*_vert.npy",
    f"{S3DIS_FOLDER}/*_point.npy",
    "*_axis_align_matrix.npy",
    "Area_*_point.npy",
)


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Map names to scans or rooms. Raises DataError if there are none."""
    scans: dict[str, Any] = {}
    for folder in (root / SCANNET_FOLDER, root / S3DIS_FOLDER, root):
        for path in list_folder(folder, "_vert.npy", "_point.npy"):
            room = _ROOM.fullmatch(path.name)
            scans[f"{room[1]}__{room[2]}" if room else path.name.removesuffix("_vert.npy")] = path
    if not scans:
        raise DataError(f"{root}: no array of MMDetection3D; expected {' or '.join(PATTERNS[:2])}")
    return scans


def refuse(root: Path) -> None:
    """Raise DataError if the folder holds only pickles."""
    pickled = next(iter(sorted(root.glob("*_infos_*.pkl"))), None)
    if pickled is not None:
        raise DataError(
            f"{pickled}: a pickle, which is never loaded; give the folder that holds the same arrays, {SCANNET_FOLDER}/ or "
            f"{S3DIS_FOLDER}/, or for SUN RGB-D the folder sunrgbd_trainval"
        )


def write(dataset: Dataset, path: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write a scan of ScanNet, or a room of S3DIS."""
    if path.name.endswith("_vert.npy"):
        return write_scan(dataset, path, "_aligned_bbox.npy", out, how)
    problems: list[Problem] = []
    table, stem = load_array(path, 6), path.name.removesuffix("_point.npy")
    rgb = value_checks.byte_colours([table[:, 3:]], [str(path)], problems)
    labels = path.with_name(f"{stem}_sem_label.npy")
    semantic = train_ids(load_array(labels, rows=len(table)), dataset, str(labels))
    instance = load_array(path.with_name(f"{stem}_ins_label.npy"), rows=len(table)).astype(np.int32)
    cloud = s3dis.checked_cloud(table[:, :3], rgb, semantic, dataset.classes, str(path), problems)
    cloud, kept, numbers = s3dis.reduced(cloud, semantic, instance, str(path))
    assert kept is not None and numbers is not None
    save_arrays(out / UNLABELLED, xyz=cloud.xyz.astype(np.float32), rgb=cloud.rgb)
    save_arrays(out / LABELLED, semantic=kept, instance=numbers)
    return {"points": len(cloud.xyz), "problems": problems}
