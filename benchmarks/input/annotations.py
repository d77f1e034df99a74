"""Limited annotations: choose the few points or boxes of a scene that keep their labels (spec C.2; 4.2, 4.3)."""

from __future__ import annotations

import codecs
import hashlib
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.support.archives import check_torch_file
from pretrain_bench.benchmarks.support.errors import DataError

RULE_VERSION = 1
K_MEANS_ROUNDS = 50


def labelled_rows(ratio: LabelRatio, scene: str, rows: int, file: Path) -> NDArray[np.int64]:
    """(n,) int64 labelled rows of a training scene with `rows` points or boxes: those of the official list in `file`, as listed
    (they may repeat), or this project's own draw. Raises DataError if the list lacks the scene."""
    if ratio.official is not None:
        listed = _read_once(file, file.stat().st_mtime_ns)
        if scene not in listed:
            raise DataError(f"{file}: no rows for scene {scene}")
        return listed[scene]
    count = ratio.points or ratio.boxes
    return np.arange(rows) if count is None else chosen_rows(scene, count, rows)


@lru_cache(maxsize=1)
def _read_once(file: Path, changed: int) -> dict[str, NDArray[np.int64]]:
    return read_label_rows(file)


def chosen_rows(scene: str, count: int, rows: int) -> NDArray[np.int64]:
    """Draw `count` labelled rows, sorted, with a seed from the scene's name; the draw of 20 is contained in that of 50."""
    seed = hashlib.sha256(f"bench-annotations-{RULE_VERSION}:{scene}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(seed[:8], "little")).permutation(rows)
    return np.sort(order[:count])


def keep_rows(labels: NDArray[Any], rows: NDArray[np.integer], ignore: int = IGNORE) -> NDArray[Any]:
    """Copy labels (N,) with `ignore` everywhere except at `rows`."""
    kept = np.full_like(labels, ignore)
    kept[rows] = np.asarray(labels)[rows]
    return kept


def read_label_rows(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read a label file of ScanNet's data-efficient benchmark: scene name to labelled rows (N,), which index the vertices of
    _vh_clean_2.ply, or the boxes of detection. Rows may repeat.

    Unpickles only plain arrays. Raises DataError for anything else.
    """
    import torch

    allowed = [
        np.dtype,
        np.ndarray,
        *(type(np.dtype(t)) for t in (np.int32, np.int64, np.uint8, np.float32, np.float64)),
    ]
    reconstruct = np.arange(1).__reduce__()[0]
    multi, scalar = "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"
    scalar_of = np.float64(0).__reduce__()[0]
    # Under their NumPy 1 names and their NumPy 2 names.
    names: list[Any] = [
        *allowed,
        codecs.encode,
        (codecs.encode, "_codecs.encode"),
        reconstruct,
        scalar_of,
        (reconstruct, multi),
        (scalar_of, scalar),
    ]
    try:
        with torch.serialization.safe_globals(names), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_torch_file(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # torch raises almost any exception on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a file of label indices that can be read safely: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise DataError(f"{path}: expected a mapping from scene names to indices")
    points = {}
    for scene, rows in content.items():
        try:
            array = np.asarray(rows[0] if isinstance(rows, tuple) and rows else rows)
        except (ValueError, TypeError):
            array = np.zeros((0, 0))
        if array.shape == (0,):
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu" or (len(array) and array.min() < 0):
            raise DataError(f"{path}: the indices of scene {scene!r} are not a list of row numbers")
        points[scene] = array.astype(np.int64)
    return points


def active_points(
    xyz: NDArray[np.floating], rgb: NDArray[np.integer], features: NDArray[np.floating], count: int
) -> NDArray[np.int64]:
    """(count,) int64 rows selected by CSC's active labelling: k-means over xyz (N, 3) in metres, rgb (N, 3) in 0..255 and
    features (N, C), 50 rounds from the first `count` points, Euclidean and unscaled; then the point nearest to each centre. An
    empty cluster keeps its centre. Raises DataError for fewer than `count` points."""
    table = np.concatenate([xyz, rgb, features], axis=1).astype(np.float64)
    if len(table) < count:
        raise DataError(f"{len(table)} points, fewer than the {count} to select")
    centres = table[:count].copy()
    for _ in range(K_MEANS_ROUNDS):
        nearest = _distances(table, centres).argmin(axis=1)
        size = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, table[:, c], count) for c in range(table.shape[1])], axis=1)
        centres = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centres)
    return _distances(table, centres).argmin(axis=0)


def _distances(table: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    return (table**2).sum(1)[:, None] - 2 * table @ centres.T + (centres**2).sum(1)
