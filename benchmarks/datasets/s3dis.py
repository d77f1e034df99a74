"""Reader of the official S3DIS text layout (spec G.2).

    <root>/Area_<k>/<room>/Annotations/<class>_<n>.txt     lines "x y z r g b": metres, z up, colours 0 to 255

Only the annotation files are read; the room's own file repeats their points. The root may also be the folder that holds
`Stanford3dDataset_v1.2_Aligned_Version`.
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
PATTERNS = ("Area_*/*/Annotations",)
"""Patterns that match in a folder of this layout, also used to suggest the right folder near a wrong one."""
OTHER_PLACES = ("*/*/Annotations", "*/Annotations")
"""Places of rooms in a user's data without areas."""
ROOM = re.compile(r"[A-Za-z]+_\d+")
"""Usual names of rooms: a folder with such a name counts as a room, and one without annotations as a problem."""


class Room(NamedTuple):
    """One room after the 1 cm quantisation; shapes as in `benchmarks.datasets.layout`. A room far from the origin is moved
    there by whole metres."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]
    problems: list[Problem]


def find_rooms(root: Path, anywhere: bool = False) -> dict[tuple[str, ...], Path]:
    """Map (area, room) to the folder of its annotation files, which may not exist. Without any Area_<k> and with `anywhere`,
    rooms are named by the folders above them: (floor, room) or (room,). Raises DataError if no room has annotations."""
    base = root / OFFICIAL_FOLDER if (root / OFFICIAL_FOLDER).is_dir() else root
    rooms: dict[tuple[str, ...], Path] = {
        (folder.parent.name, folder.name): folder / "Annotations"
        for folder in sorted(base.glob("Area_*/*"))
        if (folder / "Annotations").is_dir() or (folder.is_dir() and ROOM.fullmatch(folder.name))
    }
    for pattern in OTHER_PLACES if anywhere else ():
        rooms = rooms or {p.relative_to(base).parent.parts: p for p in sorted(base.glob(pattern)) if p.is_dir()}
    if not any(folder.is_dir() for folder in rooms.values()):
        raise DataError(
            f"{root}: no S3DIS room found; expected Area_<k>/<room>/Annotations/<class>_<n>.txt below it"
            f"{elsewhere(root, *PATTERNS)}"
        )
    return rooms


def read_room(folder: Path, raw_classes: tuple[str, ...], classes: tuple[str, ...], strict: bool = False) -> Room:
    """Read one room's `Annotations` folder. Points are sorted; instance ids number the files in sorted order.

    A line that is not six numbers is skipped and reported with file and line. With `strict`, or past MAX_BAD_LINES in one
    file, it raises DataError, as does a truncated file.
    """
    files = list_folder(folder, ".txt")
    if not files:
        raise DataError(f"{folder}: no annotation file (<class>_<n>.txt) in it")
    tables, semantic, instance, problems = [], [], [], list[Problem]()
    for number, path in enumerate(files):
        table, bad = read_points(path, strict)
        problems += bad
        train_id = _train_id(path, raw_classes, classes, problems)
        tables.append(table)
        semantic.append(np.full(len(table), train_id, dtype=np.uint8))
        instance.append(np.full(len(table), number, dtype=np.int32))
    points = np.concatenate(tables)
    colours = value_checks.byte_colours([t[:, 3:] for t in tables], [str(p) for p in files], problems)
    labels = np.concatenate(semantic)
    cloud = checked_cloud(points[:, :3], colours, labels, classes, str(folder), problems)
    cloud, kept, instances = reduced(cloud, labels, np.concatenate(instance), str(folder))
    assert kept is not None and instances is not None
    return Room(cloud.xyz.astype(np.float32), cloud.rgb, kept, instances, problems)


class ColouredPoints(NamedTuple):
    """Position (N, 3) float64 metres and colour (N, 3) uint8 of a room's points."""

    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]


def checked_cloud(
    points: NDArray[np.floating],
    colours: NDArray[np.uint8],
    semantic: NDArray[np.uint8] | None,
    classes: tuple[str, ...],
    name: str,
    problems: list[Problem],
) -> ColouredPoints:
    """Check the values of a room and move it near the origin; points and colours (N, 3), `semantic` (N,) training ids."""
    value_checks.check_colour_spread(colours, name, problems)
    xyz, _ = value_checks.near_origin(points, name, problems)
    value_checks.check_extent(xyz, "room", name, problems)
    if semantic is not None:
        _check_up(xyz, semantic, classes, name, problems)
    return ColouredPoints(xyz, colours)


def reduced(
    cloud: ColouredPoints, semantic: NDArray[np.uint8] | None, instance: NDArray[np.int32] | None, name: str
) -> tuple[ColouredPoints, NDArray[np.uint8] | None, NDArray[np.int32] | None]:
    """Keep one point per 1 cm cell, sorted by cell: the cloud (N, 3), `semantic` (N,) uint8 (255 if points in the cell disagree)
    and `instance` (N,) int32, each None if not given. Raises DataError if the cloud spans too many cells."""
    # Sorted, so that neither the order of points nor the choice of a cell's point reveals files, and thereby classes, to the
    # unlabelled view. The original code reads files in no defined order.
    order = np.lexsort(np.concatenate([cloud.xyz, cloud.rgb], axis=1).T[::-1])
    xyz, colours = cloud.xyz[order], cloud.rgb[order]
    try:
        voxels = quantise(to_cells(xyz, PRE_QUANTISATION_METRES))
    except ValueError as error:
        raise DataError(f"{name}: {error}; coordinates are metres") from None
    keep = voxels.representative
    return (
        ColouredPoints(xyz[keep], colours[keep]),
        None if semantic is None else voxel_labels(semantic[order], voxels),
        None if instance is None else instance[order][keep],
    )


def _check_up(
    xyz: NDArray[np.float64], labels: NDArray[np.uint8], classes: tuple[str, ...], name: str, problems: list[Problem]
) -> None:
    if "ceiling" in classes and "floor" in classes:
        ceiling, floor = (labels == classes.index(one) for one in ("ceiling", "floor"))
        value_checks.check_above(xyz[:, 2], ceiling, floor, f"{name}: ceiling above floor", problems)


def class_of_file(path: Path) -> str:
    """The class in an annotation file's name: `night_stand` of `night_stand_3.txt`."""
    return re.sub(r"_\d+$", "", path.stem)


def _train_id(path: Path, raw_classes: tuple[str, ...], classes: tuple[str, ...], problems: list[Problem]) -> int:
    name = class_of_file(path)
    if not raw_classes and name not in classes:
        what = f"class {name!r} is not among the dataset's classes; its points are unlabelled"
        problems.append(value_checks.Finding(what, str(path), "`raw_classes` of the dataset file lists known names"))
    elif raw_classes and name not in raw_classes:
        raise DataError(
            f"{path}: class {name!r} in the file name is not one of {', '.join(raw_classes)}; for classes of your own, write a "
            "dataset file with `bench data init`"
        )
    return classes.index(name) if name in classes else IGNORE


def read_points(path: Path, strict: bool = False) -> tuple[NDArray[np.float64], list[str]]:
    """Read "x y z r g b" lines to (N, 6) float64, with one message for each skipped line."""
    import pandas as pd

    content = read_bytes(path)
    if encoding_of(content) is not None or content.startswith(BOM_UTF8):
        content = decode(content, path).encode()
    if not content.strip():
        raise DataError(f"{path}: the file is empty; expected lines of six numbers, x y z r g b")
    if not content.endswith(b"\n") and len(content.rsplit(b"\n", 1)[-1].split()) not in (0, 6):
        line = content.count(b"\n") + 1
        raise DataError(f"{path}, line {line}: the file ends within a line, so it is truncated; copy it again")
    try:
        table = pd.read_csv(path, sep=" ", header=None, names=range(6), index_col=False, dtype=np.float64)
        values = table.to_numpy()
        # With index_col=False pandas drops extra fields with only a warning, so separators are counted here.
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
