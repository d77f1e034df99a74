"""Reader of stanford_indoor3d arrays, PointNet's form of S3DIS (spec 3.8).

    Area_<k>_<room>.npy   (N, 7): x y z r g b label; the room's minimum is at the origin, colours 0 to 255

The arrays have no instances. Rooms are reduced to one point per 1 cm cell, as the official files are.
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
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.datasets.writers import save_arrays
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder

_FILE = re.compile(r"(Area_\d+)_([A-Za-z]+_\d+)\.npy")
PATTERNS = tuple(f"{folder}Area_*_{n}.npy" for n in ("[0-9]", "[0-9][0-9]") for folder in ("", "stanford_indoor3d/"))


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find rooms by the area and room in their file names."""
    folder = root / "stanford_indoor3d" if (root / "stanford_indoor3d").is_dir() else root
    matches = ((_FILE.fullmatch(p.name), p) for p in list_folder(folder, ".npy"))
    rooms = {f"{match[1]}__{match[2]}": path for match, path in matches if match}
    if not rooms:
        raise DataError(f"{root}: no room of stanford_indoor3d; expected Area_<k>_<room>.npy")
    return rooms


def write(dataset: Dataset, path: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write a room with labels but without instances."""
    problems: list[Problem] = []
    table = load_array(path, 7)
    rgb = value_checks.byte_colours([table[:, 3:6]], [str(path)], problems)
    semantic = train_ids(table[:, 6], dataset, str(path))
    cloud = s3dis.checked_cloud(table[:, :3], rgb, semantic, dataset.classes, str(path), problems)
    cloud, kept, _ = s3dis.reduced(cloud, semantic, None, str(path))
    assert kept is not None
    save_arrays(out / UNLABELLED, xyz=cloud.xyz.astype(np.float32), rgb=cloud.rgb)
    save_arrays(out / LABELLED, semantic=kept)
    return {"points": len(cloud.xyz), "problems": problems}
