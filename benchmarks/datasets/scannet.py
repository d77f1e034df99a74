"""Reader of the official ScanNet v2 layout (spec G.1).

    <root>/scans/sceneXXXX_YY/  sceneXXXX_YY.sens, .txt, _vh_clean_2.ply, _vh_clean_2.0.010000.segs.json, .aggregation.json
    <root>/scannetv2-labels.combined.tsv

The root may also be the `scans` folder itself. A scene may lack its stream (tasks need only the mesh and its labels) or its mesh
(pre-training needs only frames). Exported frames (color/, depth/, pose/, intrinsic/) can replace the stream.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.reading import cannot_read
from pretrain_bench.benchmarks.support.user_files import decode, elsewhere, list_folder, read_text

FLOOR, CEILING = 2, 22
"""nyu40 ids."""
LABEL_MAP = "scannetv2-labels.combined.tsv"
_SCENE = re.compile(r"scene\d{4}_\d{2}")
PATTERNS = ("scans/scene[0-9]*", "scene[0-9]*_[0-9]*")
"""Patterns that match in a folder of this layout, also used to suggest the right folder near a wrong one."""


class Scan(NamedTuple):
    """A labelled mesh without faces: xyz (N, 3) float32 metres, not axis-aligned; rgb (N, 3) uint8; nyu40 (N,) int32, 0 for none;
    instance (N,) int32, 1 + index of the object in the annotation, 0 for none; alignment (4, 4), the axis alignment, or None if
    unknown. If `annotated` is false, nyu40 and instance are all 0 and carry no information. A mesh far from the origin is moved
    there by whole metres, and its alignment is adjusted."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    nyu40: NDArray[np.int32]
    instance: NDArray[np.int32]
    alignment: NDArray[np.float64] | None
    problems: list[Problem]
    annotated: bool


class SceneSource(NamedTuple):
    """The source of a scene. `label_map` is None if no scene has a mesh. `of_task` marks scenes of the official training and test
    lists, which should have labels; hidden test scenes have none."""

    folder: Path
    label_map: dict[str, int] | None
    of_task: bool = True


def find_scenes(root: Path) -> dict[str, Path]:
    """Map scene names to folders. Raises DataError if there are none."""
    base = root / "scans" if (root / "scans").is_dir() else root
    scenes = {p.name: p for p in list_folder(base) if p.is_dir() and _SCENE.fullmatch(p.name)}
    if not scenes:
        raise DataError(
            f"{root}: no ScanNet scene found; expected scans/sceneXXXX_YY/ below it{elsewhere(root, *PATTERNS)}"
        )
    return scenes


def find_label_map(root: Path) -> Path:
    """Find the label map in the root or above it. Raises DataError if it is missing."""
    for folder in (root, root.parent, root / "scans"):
        if (folder / LABEL_MAP).is_file():
            return folder / LABEL_MAP
    raise DataError(f"{root / LABEL_MAP}: no such file; copy it from ScanNet, it maps categories to label ids")


def read_label_map(path: Path) -> dict[str, int]:
    """Map raw categories to nyu40 ids."""
    try:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["raw_category"]: int(row["nyu40id"]) for row in rows}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: expected columns raw_category and nyu40id: {error!r}") from None


def read_scan(source: SceneSource) -> Scan:
    """Read one scene's mesh with its labels and axis alignment, each omitted if its files are missing. In a scene of a task, each
    omission is a problem.

    Raises DataError if a file is damaged or inconsistent with the others.
    """
    folder, label_map, of_task = source
    name = folder.name
    problems: list[Problem] = []
    xyz, rgb, offset = read_vertices(mesh := folder / f"{name}_vh_clean_2.ply", problems)
    alignment = read_alignment(folder / f"{name}.txt")
    if alignment is not None:
        alignment = _moved(alignment, offset)
    elif of_task:
        problems.append(
            f"{folder / f'{name}.txt'}: no such file, or no line axisAlignment in it; scene {name} is left out of detection"
        )
    nyu40 = np.zeros(len(xyz), np.int32)
    instance = np.zeros(len(xyz), np.int32)
    aggregation = folder / f"{name}.aggregation.json"
    segmentation = folder / f"{name}_vh_clean_2.0.010000.segs.json"
    lacking = [str(path) for path in (aggregation, segmentation) if not path.is_file()]
    if lacking and of_task:
        problems.append(f"{', '.join(lacking)}: no such file; scene {name} has no labels and is left out of tasks")
    annotated = label_map is not None and not lacking
    if label_map is not None and annotated:
        segments = _segments(segmentation, len(xyz))
        unknown: set[str] = set()
        for number, (category, members) in enumerate(_groups(aggregation), start=1):
            here = np.isin(segments, members)
            if category not in label_map:
                unknown.add(category)
            nyu40[here] = label_map.get(category, 0)
            instance[here] = number
        value_checks.check_labelled(nyu40 > 0, str(aggregation), problems)
        problems += [f"{name}: category {c!r} is not in the label map; unlabelled" for c in sorted(unknown)]
    value_checks.check_above(xyz[:, 2], nyu40 == CEILING, nyu40 == FLOOR, f"{mesh}: ceiling above floor", problems)
    return Scan(xyz, rgb, nyu40, instance, alignment, problems, annotated)


def _moved(alignment: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """The alignment after `offset` was subtracted from the points."""
    moved = alignment.copy()
    moved[:3, 3] += alignment[:3, :3] @ offset
    return moved


def read_vertices(
    path: Path, problems: list[Problem]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Positions (N, 3), colours (N, 3) and the offset (3,) subtracted from the positions, from a PLY file."""
    from plyfile import PlyData, PlyParseError

    try:
        vertex = PlyData.read(str(path), known_list_len={"face": {"vertex_indices": 3}})["vertex"]
        columns = [np.asarray(vertex[c]) for c in ("x", "y", "z", "red", "green", "blue")]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; tasks need the mesh of a scene") from None
    except (PlyParseError, KeyError, ValueError, OSError, TypeError, MemoryError, EOFError) as error:
        raise DataError(f"{path}: not a PLY file with x, y, z, red, green, blue: {error}") from None
    if any(c.dtype.kind not in "iuf" for c in columns):
        raise DataError(f"{path}: its x, y, z, red, green or blue are not numbers")
    xyz, name = np.stack([np.asarray(c, np.float64) for c in columns[:3]], axis=1), str(path)
    if not len(xyz) or not np.isfinite(xyz).all():
        raise DataError(f"{path}: {len(xyz)} vertices, of which {int((~np.isfinite(xyz)).any(1).sum())} are not finite")
    rgb = value_checks.byte_colours([np.stack(columns[3:], axis=1)], [name], problems)
    value_checks.check_colour_spread(rgb, name, problems)
    moved, offset = value_checks.near_origin(xyz, name, problems)
    value_checks.check_extent(moved, "room", name, problems)
    return moved.astype(np.float32), rgb, offset


def read_alignment(path: Path) -> NDArray[np.float64] | None:
    """Axis alignment (4, 4) from a scene's .txt; None if the file or the line is missing."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from None
    for number, line in enumerate(decode(content, path).splitlines(), start=1):
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                matrix = np.array([float(v) for v in value.split()])
            except ValueError:
                matrix = np.zeros(0)
            if matrix.shape != (16,) or not np.isfinite(matrix).all():
                raise DataError(f"{path}, line {number}: axisAlignment must be 16 numbers")
            where = f"{path}, line {number}"
            alignment = value_checks.rigid(matrix.reshape(4, 4), where, "axisAlignment")
            if alignment[2, 2] < 1 - value_checks.ROTATION_TOLERANCE:
                raise DataError(f"{where}: axisAlignment tilts the z axis; expected a turn about z, as ScanNet's")
            return alignment
    return None


def train_ids(nyu40: NDArray[np.integer], class_ids: tuple[int, ...]) -> NDArray[np.uint8]:
    """Training ids (N,) of nyu40 labels: the index of each label in `class_ids`, 255 for other labels."""
    table = np.full(max(256, *class_ids) + 1, IGNORE, np.uint8)
    table[list(class_ids)] = np.arange(len(class_ids))
    return table[np.clip(nyu40, 0, len(table) - 1)]


def instance_boxes(scan: Scan, class_ids: tuple[int, ...]) -> NDArray[np.float32]:
    """Boxes (K, 8) of every instance of these classes: centre, full size, heading 0 and index in `class_ids`, from the
    axis-aligned extents of all its vertices (spec G.1, detection data). The scan must have an alignment."""
    assert scan.alignment is not None
    aligned = scan.xyz.astype(np.float64) @ scan.alignment[:3, :3].T + scan.alignment[:3, 3]
    boxes = []
    for number in np.unique(scan.instance[scan.instance > 0]):
        here = scan.instance == number
        label = int(scan.nyu40[here][0])
        if label in class_ids:
            low, high = aligned[here].min(0), aligned[here].max(0)
            boxes.append([*((low + high) / 2), *(high - low), 0.0, class_ids.index(label)])
    return np.asarray(boxes, np.float32).reshape(-1, 8)


def _segments(path: Path, vertices: int) -> NDArray[np.int64]:
    indices = _json(path, "segIndices", list)
    try:
        segments = np.asarray(indices)
    except (ValueError, OverflowError):
        segments = np.zeros(0)
    if segments.shape != (vertices,) or segments.dtype.kind not in "iu":
        raise DataError(
            f"{path}: segIndices has {len(indices)} entries; expected one whole number for each of {vertices}"
        )
    return segments.astype(np.int64)


def _groups(path: Path) -> list[tuple[str, list[int]]]:
    """(category, segments) of each object. A list that appears twice in a row (scene0217_00) is read once."""
    groups = _json(path, "segGroups", list)
    objects = []
    for number, group in enumerate(groups):
        if not (
            isinstance(group, dict) and isinstance(group.get("label"), str) and isinstance(group.get("segments"), list)
        ):
            raise DataError(f"{path}: segGroups[{number}] has no label and segments")
        segments = group["segments"]
        if not all(isinstance(s, int) and abs(s) < 2**62 for s in segments):
            raise DataError(f"{path}: segGroups[{number}].segments must be whole numbers")
        objects.append((group["label"], segments))
    half = len(objects) // 2
    return objects[:half] if half and len(objects) == 2 * half and objects[:half] == objects[half:] else objects


def _json(path: Path, field: str, kind: type) -> Any:
    try:
        content = json.loads(decode(path.read_bytes(), path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, though the scene is annotated") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get(field), kind):
        raise DataError(f"{path}: it has no list {field!r}")
    return content[field]
