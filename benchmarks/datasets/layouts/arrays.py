"""Shared code for layouts of NumPy arrays: loading without pickles, and mapping stored ids to training ids."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.reading import cannot_read

NUMBERS = "biuf"


def load_array(path: Path, columns: int | None = None, rows: int | None = None, key: str | None = None) -> NDArray[Any]:
    """Load a numeric array of shape (N, columns), or (N,) without `columns`; (N, 1) is then flattened. `key` names an array in an
    archive. Raises DataError for a pickle, another shape, or another number of `rows`."""
    try:
        array = np.load(path, allow_pickle=False)
        if key is not None:
            with array as archive:
                array = archive[key]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        what = "it holds a pickle, which is never loaded" if "pickle" in str(error).lower() else str(error)
        raise DataError(f"{path}: not a NumPy array of numbers: {what}") from None
    except OSError as error:
        raise cannot_read(path, error) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS:
        raise DataError(f"{path}: not a NumPy array of numbers")
    if columns is None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    expected = "(N,)" if columns is None else f"(N, {columns})"
    if array.ndim != (1 if columns is None else 2) or (columns is not None and array.shape[1] != columns):
        raise DataError(f"{path}: an array of shape {array.shape}; expected {expected}")
    if rows is not None and len(array) != rows:
        raise DataError(f"{path}: {len(array)} rows; the scene has {rows} points")
    return array


def train_ids(raw: NDArray[Any], dataset: Dataset, where: str) -> NDArray[np.uint8]:
    """Map stored ids (N,) to training ids (N,) uint8; negative ids and ids without a class become 255.

    Stored ids index `layout_classes` if the dataset defines them for its layout; otherwise they are its `class_ids`, or
    indices of its classes if it has none. Raises DataError for labels that are not whole numbers, and for an
    id beyond those classes, except with `class_ids`.
    """
    in_file = dataset.layout_classes.get(dataset.layout)
    ids = raw.astype(np.int64)
    if not np.array_equal(ids, raw):
        raise DataError(f"{where}: labels are not whole numbers")
    if in_file is not None:
        targets = {i: dataset.classes.index(name) for i, name in enumerate(in_file) if name in dataset.classes}
        known: range | None = range(len(in_file))
    elif dataset.class_ids:
        targets, known = {raw_id: place for place, raw_id in enumerate(dataset.class_ids)}, None
    else:
        known = range(len(dataset.classes))
        targets = {i: i for i in known}
    values, places = np.unique(ids, return_inverse=True)
    if known is not None and len(values) and values[-1] >= len(known):
        raise DataError(
            f"{where}: label {values[-1]}, but there are {len(known)} classes, 0 to {len(known) - 1}; set `class_ids` in the "
            "dataset file to the id of each class"
        )
    table = np.array([targets.get(int(v), IGNORE) for v in values], np.uint8)
    return table[places.reshape(-1)] if len(values) else np.zeros(0, np.uint8)
