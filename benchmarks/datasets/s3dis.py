"""Reader of the official S3DIS text layout (spec G.2).

    <root>/Area_<k>/<room>/Annotations/<class>_<n>.txt     lines "x y z r g b": metres, z up, colours 0 to 255

Only the annotation files are read; the room-level file repeats their points and is not needed. The root may also be the
folder that holds `Stanford3dDataset_v1.2_Aligned_Version`.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.input.voxelise import IGNORE, quantise, to_cells, voxel_labels
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import read_bytes
from pretrain_bench.benchmarks.support.user_files import decode, elsewhere, encoding_of, list_folder

OFFICIAL_FOLDER = "Stanford3dDataset_v1.2_Aligned_Version"
PRE_QUANTISATION_METRES = 0.01
MAX_BAD_LINES = 10
PLACES = ("Area_*/*/Annotations",)
"""What a folder of this layout holds, to find it near a folder that is not one."""
ROOM = re.compile(r"[A-Za-z]+_\d+")
"""Names of rooms: a folder of such a name is a room, and one without annotations is a problem."""


class Room(NamedTuple):
    """One room after the 1 cm quantisation. Shapes: `benchmarks.datasets.layout`; a problem is one line of text. A room far from
    the origin is moved there by whole metres."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]
    problems: list[Problem]


def find_rooms(root: Path) -> dict[tuple[str, str], Path]:
    """(area, room) to the folder of its annotation files, which may not be there. Raises DataError where no room has one."""
    base = root / OFFICIAL_FOLDER if (root / OFFICIAL_FOLDER).is_dir() else root
    rooms = {
        (folder.parent.name, folder.name): folder / "Annotations"
        for folder in sorted(base.glob("Area_*/*"))
        if (folder / "Annotations").is_dir() or (folder.is_dir() and ROOM.fullmatch(folder.name))
    }
    if not any(folder.is_dir() for folder in rooms.values()):
        raise DataError(
            f"{root}: no S3DIS room found; expected Area_<k>/<room>/Annotations/<class>_<n>.txt below it"
            f"{elsewhere(root, *PLACES)}"
        )
    return rooms


def read_room(folder: Path, raw_classes: tuple[str, ...], classes: tuple[str, ...], strict: bool = False) -> Room:
    """Read one room's `Annotations` folder. Points are sorted; instance ids number the files in sorted order.

    A line that is not six numbers costs one point and is reported with file and line; with `strict`, or past
    MAX_BAD_LINES in one file, it is a DataError, as is a file that ends within a line.
    """
    files = list_folder(folder, ".txt")
    if not files:
        raise DataError(f"{folder}: no annotation file (<class>_<n>.txt) in it")
    tables, semantic, instance, problems = [], [], [], list[Problem]()
    for number, path in enumerate(files):
        table, bad = read_points(path, strict)
        problems += bad
        train_id = _train_id(path, raw_classes, classes)
        tables.append(table)
        semantic.append(np.full(len(table), train_id, dtype=np.uint8))
        instance.append(np.full(len(table), number, dtype=np.int32))
    points = np.concatenate(tables)
    colours = value_checks.byte_colours([t[:, 3:] for t in tables], [str(p) for p in files], problems)
    value_checks.check_colour_spread(colours, str(folder), problems)
    xyz, _ = value_checks.near_origin(points[:, :3], str(folder), problems)
    value_checks.check_extent(xyz, "room", str(folder), problems)
    _check_up(xyz, np.concatenate(semantic), classes, folder, problems)
    # In an order of their own, so that neither the order of points nor which one stands for a voxel tells anything of the
    # files, and so of the classes, to a view without labels. The original reads the files in no order at all.
    order = np.lexsort(points.T[::-1])
    xyz, colours = xyz[order], colours[order]
    labels, instances = np.concatenate(semantic)[order], np.concatenate(instance)[order]
    try:
        voxels = quantise(to_cells(xyz, PRE_QUANTISATION_METRES))
    except ValueError as error:
        raise DataError(f"{folder}: {error}; coordinates are metres") from None
    keep = voxels.representative
    return Room(
        xyz=xyz[keep].astype(np.float32),
        rgb=colours[keep],
        semantic=voxel_labels(labels, voxels),
        instance=instances[keep],
        problems=problems,
    )


def _check_up(
    xyz: NDArray[np.float64], labels: NDArray[np.uint8], classes: tuple[str, ...], folder: Path, problems: list[Problem]
) -> None:
    if "ceiling" in classes and "floor" in classes:
        ceiling, floor = (labels == classes.index(name) for name in ("ceiling", "floor"))
        value_checks.check_above(xyz[:, 2], ceiling, floor, f"{folder}: ceiling above floor", problems)


def _train_id(path: Path, raw_classes: tuple[str, ...], classes: tuple[str, ...]) -> int:
    match = re.fullmatch(r"([A-Za-z]+)_\d+", path.stem)
    name = match.group(1) if match else path.stem
    if name not in raw_classes:
        raise DataError(f"{path}: class {name!r} in the file name is not one of {', '.join(raw_classes)}")
    return classes.index(name) if name in classes else IGNORE


def read_points(path: Path, strict: bool = False) -> tuple[NDArray[np.float64], list[str]]:
    """Read "x y z r g b" lines to (N, 6) float64, and one message per line that was left out."""
    import pandas as pd

    content = read_bytes(path)
    if encoding_of(content) is not None or content.startswith(BOM_UTF8):
        content = decode(content, path).encode()
    if not content.strip():
        raise DataError(f"{path}: the file is empty; expected lines of six numbers, x y z r g b")
    if not content.endswith(b"\n") and len(content.rsplit(b"\n", 1)[-1].split()) not in (0, 6):
        line = content.count(b"\n") + 1
        raise DataError(f"{path}, line {line}: the file ends within a line; it was cut off, copy it again")
    try:
        table = pd.read_csv(path, sep=" ", header=None, names=range(6), index_col=False, dtype=np.float64)
        values = table.to_numpy()
        # index_col=False lets pandas drop surplus fields with a warning only, so the separators are counted.
        if np.isfinite(values).all() and content.count(b" ") == 5 * len(values):
            return values, []
    except (ValueError, pd.errors.ParserError):
        pass
    return _read_line_by_line(path, content, strict)


def _read_line_by_line(path: Path, content: bytes, strict: bool) -> tuple[NDArray[np.float64], list[str]]:
    rows, problems = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            row = [float(f) for f in fields]
        except ValueError:
            row = []
        if len(row) == 6 and np.isfinite(row).all():
            rows.append(row)
            continue
        shown = line[:40].decode("ascii", errors="backslashreplace")
        problem = f"{path}, line {number}: {shown!r} is not six numbers, x y z r g b"
        if strict:
            raise DataError(problem)
        problems.append(f"{problem}; the point is left out")
        if len(problems) > MAX_BAD_LINES:
            raise DataError(f"{path}: more than {MAX_BAD_LINES} bad lines, the last is line {number}: {shown!r}")
    if not rows:
        raise DataError(f"{path}: no line of six numbers, x y z r g b, in it")
    return np.asarray(rows, dtype=np.float64), problems
