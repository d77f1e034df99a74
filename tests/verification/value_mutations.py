"""Mutations of values, by layout: scales, signs, transposes, offsets, dropped files.

A mutation takes the root of a tiny input (tiny_inputs.py) and a random generator, and damages one scene. Changes that no
reader can detect are left out: halved brightness, a mirrored scene, a missing annotation file of a room.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plyfile import PlyData, PlyElement
from scipy.io import loadmat, savemat

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.sens import read_frames, read_header, write_sens

Array = NDArray[Any]
Change = Callable[[Array, np.random.Generator], Array]
Mutation = Callable[[Path, np.random.Generator], None]


class Kind(NamedTuple):
    """How to read a quantity from a scene's file, change it, and write it back, for each change in `changes`."""

    place: str
    edit: Callable[[Path, Change, np.random.Generator], None]
    changes: dict[str, Change]


def scaled(*factors: float) -> dict[str, Change]:
    """Multiply by one of the factors, within a few per cent."""
    return {f"times {f:g}": lambda a, rng, f=f: a * (f * rng.uniform(0.97, 1.03)) for f in factors}


def exactly(*factors: float) -> dict[str, Change]:
    """Multiply by exactly one of these factors."""
    return {f"times {f:g}": lambda a, rng, f=f: a * f for f in factors}


def negated_axes(a: Array, rng: np.random.Generator) -> Array:
    """Negate one column of the rotation, or all three."""
    a = a.copy()
    a[:3, rng.choice(3, int(rng.choice([1, 3])), replace=False)] *= -1
    return a


def negated_entry(a: Array, rng: np.random.Generator) -> Array:
    """Negate one entry of the rotation that is not nearly zero."""
    a = a.copy()
    rows, columns = np.nonzero(np.abs(a[:3, :3]) > 0.1)
    at = int(rng.integers(len(rows)))
    a[rows[at], columns[at]] *= -1
    return a


def stretched(a: Array, rng: np.random.Generator) -> Array:
    """Scale one column of the rotation."""
    a = a.copy()
    a[:3, int(rng.integers(3))] *= rng.choice([0.01, 0.5, 0.9, 1.1, 2, 1000])
    return a


def other_last_row(a: Array, rng: np.random.Generator) -> Array:
    """Replace the last row 0 0 0 1."""
    a = a.copy()
    a[3, int(rng.integers(4))] += rng.choice([-1, 0.5, 2])
    return a


def mixed_up(a: Array, rng: np.random.Generator) -> Array:
    """Rows of a matrix that was stored column by column and is read row by row."""
    return a.T.reshape(a.shape)


def not_finite(a: Array, rng: np.random.Generator) -> Array:
    """Make one entry NaN or infinite."""
    a = a.copy()
    a.flat[int(rng.integers(a.size))] = rng.choice([np.nan, np.inf, -np.inf])
    return a


TRANSPOSED: dict[str, Change] = {"transposed": lambda a, rng: a.T}
ROTATION: dict[str, Change] = {
    "negated axes": negated_axes,
    "negated entry": negated_entry,
    "stretched": stretched,
    **scaled(-1, 0.001, 0.5, 1000),
}
POSE = {**ROTATION, **TRANSPOSED, "last row": other_last_row, "not finite": not_finite}


def _focal(a: Array, rng: np.random.Generator, factor: float) -> Array:
    a = a.copy()
    a[[0, 1], [0, 1]] *= factor
    return a


INTRINSIC: dict[str, Change] = {
    "transposed": lambda a, rng: a.T,
    "of another size": lambda a, rng: np.vstack([a[:2] * rng.choice([0.25, 0.5, 0.66, 1.5, 2, 4]), a[2:]]),
    "focal length times 1000": lambda a, rng: _focal(a, rng, 1000),
    "focal length over 1000": lambda a, rng: _focal(a, rng, 0.001),
    "negative focal length": lambda a, rng: _focal(a, rng, -1),
    "one focal length": lambda a, rng: (
        a * np.where(np.arange(a.size).reshape(a.shape) == 0, rng.choice([0.5, 2, -1]), 1)
    ),
    "negative centre": lambda a, rng: np.where(np.arange(a.shape[1]) == 2, -a, a),
    "not finite": not_finite,
    **scaled(0.5, 2, 1000, -1),
}
METRES = scaled(0.001, 0.01, 100, 1000)


def far_away(a: Array, rng: np.random.Generator) -> Array:
    """Move by 10 to 10,000 km, as in national grids."""
    return a + rng.choice([-1, 1], 3) * 10 ** rng.uniform(4, 7, 3)


ROOM = {**METRES, "far away": far_away, "upside down": lambda a, rng: a * (1, 1, -1)}
BYTES = {**exactly(1 / 255, 256, 257, 0, -1), "over 1000": lambda a, rng: a / 1000}


def text_matrix(path: Path, change: Change, rng: np.random.Generator) -> None:
    """A text file with a matrix, as written by numpy."""
    np.savetxt(path, change(np.loadtxt(path), rng), fmt="%.9g")


def _columns(path: Path, columns: slice, change: Change, rng: np.random.Generator) -> None:
    points = np.loadtxt(path)
    points[:, columns] = change(points[:, columns], rng)
    np.savetxt(path, points, fmt="%.12g")


def _same(change: Change, rng: np.random.Generator) -> Change:
    """The same change for several files."""
    seed = int(rng.integers(2**32))
    return lambda a, _: change(a, np.random.default_rng(seed))


def room(path: Path, change: Change, rng: np.random.Generator, columns: slice = slice(0, 3)) -> None:
    """Columns of every annotation file of an S3DIS room."""
    same = _same(change, rng)
    for file in sorted(path.glob("*.txt")):
        _columns(file, columns, same, rng)


def ply(path: Path, change: Change, rng: np.random.Generator, names: str = "xyz") -> None:
    """Coordinates or colours of a mesh, as doubles."""
    vertex = PlyData.read(str(path))["vertex"].data
    wide = np.empty(len(vertex), [(name, "f8") for name in vertex.dtype.names])
    for name in vertex.dtype.names:
        wide[name] = vertex[name]
    chosen = ["x", "y", "z"] if names == "xyz" else ["red", "green", "blue"]
    changed = change(np.column_stack([wide[name] for name in chosen]), rng)
    for at, name in enumerate(chosen):
        wide[name] = changed[:, at]
    PlyData([PlyElement.describe(wide, "vertex")]).write(str(path))


def alignment(path: Path, change: Change, rng: np.random.Generator) -> None:
    """The axis alignment of a ScanNet scene."""
    matrix = np.array([float(v) for v in path.read_text().partition("=")[2].split()]).reshape(4, 4)
    path.write_text(f"axisAlignment = {' '.join(f'{v:.9g}' for v in change(matrix, rng).reshape(-1))}\n")


def tilted(a: Array, rng: np.random.Generator) -> Array:
    """Turn the vertical axis to the side."""
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0, -1], [1, 0]] if rng.random() < 0.5 else [[0.8, -0.6], [0.6, 0.8]]
    return turn @ a


def stream(path: Path, change: Change, rng: np.random.Generator, field: str) -> None:
    """The depth intrinsics, all poses or all images of a stream."""
    header, frames, same = read_header(path), list(read_frames(path)), _same(change, rng)
    if field == "intrinsic":
        header = header._replace(intrinsic_depth=change(header.intrinsic_depth, rng))
    elif field == "pose":
        frames = [f._replace(pose=same(f.pose, rng)) for f in frames]
    else:
        frames = [f._replace(colour=_repainted(f.colour, same, rng)) for f in frames]
    write_sens(path, header, frames)


def _repainted(encoded: bytes, change: Change, rng: np.random.Generator) -> bytes:
    return images.encode_colour(change(images.decode_colour(encoded, "picture"), rng).clip(0, 255).astype(np.uint8))


def picture(path: Path, change: Change, rng: np.random.Generator) -> None:
    """A colour image as PNG, or 16-bit grey if values do not fit into 8 bits."""
    values = change(np.asarray(Image.open(path).convert("RGB")), rng)
    sixteen = values.max() > 255
    Image.fromarray(values[:, :, 0].astype(np.uint16) if sixteen else values.astype(np.uint8)).save(path, format="PNG")


PICTURE: dict[str, Change] = {
    "of 16 bits": lambda a, rng: a.astype(np.int64) * int(rng.choice([256, 257])),
    "0 to 1": lambda a, rng: a / 255,
    "black": lambda a, rng: a * 0,
    "clipped": lambda a, rng: np.where(a > 127, 255, 0),
}


def scan(path: Path, change: Change, rng: np.random.Generator, columns: slice = slice(0, 3)) -> None:
    """Columns of a laser's scan."""
    points = np.fromfile(path, "<f4").reshape(-1, 4).astype(np.float64)
    points[:, columns] = change(points[:, columns], rng)
    points.astype("<f4").tofile(path)


def labels(path: Path, change: Change, rng: np.random.Generator) -> None:
    """Label ids of a scan."""
    change(np.fromfile(path, "<u4"), rng).astype("<u4").tofile(path)


def calibration(path: Path, change: Change, rng: np.random.Generator, name: str) -> None:
    """One matrix of a KITTI calibration."""
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        if line.startswith(f"{name}:"):
            matrix = change(np.array([float(v) for v in line.partition(":")[2].split()]).reshape(3, 4), rng)
            lines[at] = f"{name}: {' '.join(f'{v:.9g}' for v in matrix.reshape(-1))}"
    path.write_text("\n".join(lines) + "\n")


def car_pose(path: Path, change: Change, rng: np.random.Generator) -> None:
    """The second pose of a KITTI sequence."""
    lines = path.read_text().splitlines()
    matrix = change(np.array([float(v) for v in lines[1].split()]).reshape(3, 4), rng)
    path.write_text(f"{lines[0]}\n{' '.join(f'{v:.9g}' for v in matrix.reshape(-1))}\n")


def shifted(a: Array, rng: np.random.Generator) -> Array:
    """Multiply the translation by a thousand."""
    a = a.copy()
    a[:3, 3] *= 1000
    return a


def inverse(a: Array, rng: np.random.Generator) -> Array:
    """The inverse of a rigid (3, 4) matrix."""
    return np.linalg.inv(np.vstack([a, [0, 0, 0, 1]]))[:3]


def mat(path: Path, change: Change, rng: np.random.Generator, columns: slice = slice(0, 3)) -> None:
    """Columns of a SUN RGB-D view's points."""
    points = loadmat(path)["instance"]
    points[:, columns] = change(points[:, columns], rng)
    savemat(path, {"instance": points})


def view_calibration(path: Path, change: Change, rng: np.random.Generator, row: int) -> None:
    """Rtilt (row 0) or K (row 1) of a SUN RGB-D view, both stored column by column."""
    rows = np.loadtxt(path)
    rows[row] = change(rows[row].reshape(3, 3).T, rng).T.reshape(-1)
    np.savetxt(path, rows, fmt="%.9g")


def boxes(path: Path, change: Change, rng: np.random.Generator, columns: slice = slice(4, 7)) -> None:
    """The values of all boxes of a SUN RGB-D view."""
    lines = [line.split() for line in path.read_text().splitlines()]
    changed = change(np.array([line[1:] for line in lines], float)[:, columns], rng)
    for line, values in zip(lines, changed, strict=True):
        line[1:][columns] = []
        line[1 + columns.start : 1 + columns.stop] = [f"{v:.9g}" for v in values]
    path.write_text("\n".join(" ".join(line) for line in lines) + "\n")


def drop(path: Path, change: Change, rng: np.random.Generator) -> None:
    """Remove the file."""
    path.unlink()


DROPPED: dict[str, Change] = {"dropped": lambda a, rng: a}
KITTI, SUN = "dataset/sequences/00", "sunrgbd_trainval"
SCENE = "scans/scene0000_00/scene0000_00"

KINDS: dict[str, list[Kind]] = {
    "s3dis": [
        Kind("Area_1/office_1/Annotations", room, ROOM),
        Kind("Area_1/office_1/Annotations", lambda p, c, r: room(p, c, r, slice(3, 6)), BYTES),
        Kind("Area_1/office_1/Annotations/chair_1.txt", lambda p, c, r: _columns(p, slice(3, 6), c, r), exactly(1 / 255, 257, -1)),
    ],
    "rgbd-folder": [
        Kind("room_a/pose/1.txt", text_matrix, POSE),
        Kind("room_a/intrinsic/intrinsic_depth.txt", text_matrix, {**INTRINSIC, "last row": other_last_row}),
        Kind("room_a/color/1.png", picture, PICTURE),
        Kind("room_a/intrinsic/intrinsic_depth.txt", drop, DROPPED),
        Kind("room_a/pose/1.txt", drop, DROPPED),
        Kind("room_a/depth/1.png", drop, DROPPED),
        Kind("room_a/color/1.png", drop, DROPPED),
    ],
    "scannet": [
        Kind(f"{SCENE}_vh_clean_2.ply", ply, ROOM),
        Kind(f"{SCENE}_vh_clean_2.ply", lambda p, c, r: ply(p, c, r, "rgb"), BYTES),
        Kind(f"{SCENE}.txt", alignment, {**POSE, "tilted": tilted}),
        Kind(f"{SCENE}.sens", lambda p, c, r: stream(p, c, r, "intrinsic"), INTRINSIC),
        Kind(f"{SCENE}.sens", lambda p, c, r: stream(p, c, r, "pose"), POSE),
        Kind(f"{SCENE}.sens", lambda p, c, r: stream(p, c, r, "picture"), {k: PICTURE[k] for k in ("0 to 1", "black", "clipped")}),
        Kind("scannetv2-labels.combined.tsv", drop, DROPPED),
        Kind(f"{SCENE}.txt", drop, DROPPED),
        Kind(f"{SCENE}.aggregation.json", drop, DROPPED),
        Kind(f"{SCENE}_vh_clean_2.ply", drop, DROPPED),
        Kind(f"{SCENE}_vh_clean_2.0.010000.segs.json", drop, DROPPED),
        Kind(f"{SCENE}.sens", drop, DROPPED),
    ],
    "semantickitti": [
        Kind(f"{KITTI}/velodyne/000001.bin", scan, {**METRES, "upside down": ROOM["upside down"]}),
        Kind(f"{KITTI}/velodyne/000001.bin", lambda p, c, r: scan(p, c, r, slice(3, 4)), exactly(255, 65535, 0, -1, 100)),
        Kind(f"{KITTI}/labels/000001.label", labels, {"bytes swapped": lambda a, rng: a.byteswap(), "halves swapped": lambda a, rng: a << 16}),
        Kind(f"{KITTI}/calib.txt", lambda p, c, r: calibration(p, c, r, "Tr"), {**ROTATION, "mixed up": mixed_up, "inverse": inverse}),
        Kind(f"{KITTI}/calib.txt", lambda p, c, r: calibration(p, c, r, "P2"),
             {k: v for k, v in INTRINSIC.items() if k != "transposed"} | {"mixed up": mixed_up}),
        Kind(f"{KITTI}/poses.txt", car_pose, {**ROTATION, "mixed up": mixed_up, "in millimetres": shifted}),
        Kind(f"{KITTI}/image_2/000001.png", picture, PICTURE),
        Kind(f"{KITTI}/calib.txt", drop, DROPPED),
        Kind(f"{KITTI}/labels/000001.label", drop, DROPPED),
        Kind(f"{KITTI}/image_2/000001.png", drop, DROPPED),
        Kind(f"{KITTI}/velodyne/000001.bin", drop, DROPPED),
    ],
    "sunrgbd": [
        Kind(f"{SUN}/depth/000001.mat", mat, {**METRES, "behind": lambda a, rng: a * (1, -1, 1)}),
        Kind(f"{SUN}/depth/000001.mat", lambda p, c, r: mat(p, c, r, slice(3, 6)), exactly(255, 65535, 1 / 255, 0, -1)),
        Kind(f"{SUN}/calib/000001.txt", lambda p, c, r: view_calibration(p, c, r, 0), ROTATION),
        Kind(f"{SUN}/calib/000001.txt", lambda p, c, r: view_calibration(p, c, r, 1), INTRINSIC),
        Kind(f"{SUN}/label_v1/000001.txt", boxes, {**scaled(10, 100, 1000), "behind": lambda a, rng: a * (1, -1, 1)}),
        Kind(f"{SUN}/label_v1/000001.txt", lambda p, c, r: boxes(p, c, r, slice(7, 10)), {**scaled(0.001, 0.01, 100, 1000), **exactly(-1)}),
        Kind(f"{SUN}/label_v1/000001.txt", lambda p, c, r: boxes(p, c, r, slice(10, 12)), scaled(0, 0.01, 100)),
        Kind(f"{SUN}/image/000001.jpg", picture, PICTURE),
        Kind(f"{SUN}/calib/000001.txt", drop, DROPPED),
        Kind(f"{SUN}/label_v1/000001.txt", drop, DROPPED),
        Kind(f"{SUN}/image/000001.jpg", drop, DROPPED),
        Kind(f"{SUN}/depth/000001.mat", drop, DROPPED),
    ],
}  # fmt: skip


def mutations(layout: str) -> dict[str, Mutation]:
    """Maps names to mutations: a file, a quantity in it (in the editor's order of KINDS), and a change."""
    named: dict[str, Mutation] = {}
    for number, kind in enumerate(KINDS[layout]):
        for what, change in kind.changes.items():

            def mutate(root: Path, rng: np.random.Generator, kind: Kind = kind, change: Change = change) -> None:
                kind.edit(root / kind.place, change, rng)

            named[f"{number} {Path(kind.place).name}: {what}"] = mutate
    return named
