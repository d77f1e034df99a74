"""Saved predictions: one compressed file for each scene, with a format version. Reading is safe: no pickles, limited sizes.

The content depends on the kind of task, see `LAYOUTS`: exactly the listed fields, in their dtypes, with consistent shapes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.support.archives import unpacked_bytes
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.foreign_files import open_plain

FORMAT_VERSION = 1
HEADER_BYTES = 1024
MOST_INSTANCES, MOST_BOXES = 65_535, 4096
MOST_SHARES = 4
"""Largest average number of predicted instances that a voxel of a scene may belong to."""

MOST_UNTYPED_BYTES = 256 << 20

Prediction = dict[str, NDArray[Any]]
Layout = dict[str, tuple[str, tuple[str | int, ...]]]
"""Field to dtype and shape; equal letters stand for equal lengths."""

LAYOUTS: dict[str, Layout] = {
    # Class of every voxel.
    "semantic": {"classes": ("uint8", ("V",))},
    # Also P instances: voxels[starts[i]:starts[i + 1]] are the rows of instance i, with its class and confidence.
    "instance": {
        "classes": ("uint8", ("V",)),
        "voxels": ("int32", ("M",)),
        "starts": ("int32", ("P1",)),
        "instance_classes": ("uint8", ("P",)),
        "confidences": ("float32", ("P",)),
    },
    # K boxes: centre, full size, heading (metres, radians), objectness, probability of each of C classes.
    "detection": {
        "boxes": ("float32", ("K", 7)),
        "objectness": ("float32", ("K",)),
        "probabilities": ("float32", ("K", "C")),
    },
}


def write(folder: Path, predictions: Mapping[str, Prediction]) -> None:
    """Write the arrays of every scene as `<folder>/<scene>.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene, arrays in predictions.items():
        temporary = folder / f"{scene}.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, format_version=np.uint8(FORMAT_VERSION), **arrays)
        os.replace(temporary, folder / f"{scene}.npz")


def read(folder: Path, scene: str, kind: str, sizes: Mapping[str, int]) -> Prediction:
    """Read the prediction of one scene; `sizes` gives the known lengths by letter, such as V.

    Raises DataError if the file is missing, damaged, of another task or of other sizes (another voxel size).
    """
    layout, path = LAYOUTS[kind], folder / f"{scene}.npz"
    try:
        with open_plain(path) as file:
            unpacked = unpacked_bytes(file)
        if unpacked > _most_bytes(kind, sizes):
            raise ValueError(f"{unpacked:,} bytes unpacked, expected at most {_most_bytes(kind, sizes):,}")
        with open_plain(path) as file, np.load(file, allow_pickle=False) as archive:
            names = set(archive.files) - {"format_version"}
            if names != set(layout):
                raise ValueError(
                    f"it holds {', '.join(sorted(names)) or 'nothing'}; predictions of kind {kind} hold {', '.join(layout)}"
                )
            version, arrays = int(archive["format_version"]), {name: archive[name] for name in layout}
    except FileNotFoundError:
        raise DataError(f"{path.name}: no predictions for scene {scene}") from None
    except Exception as error:  # zipfile and numpy raise many exceptions on damaged archives
        raise DataError(f"{path.name}: cannot be read as predictions: {error}") from None
    known = dict(sizes)
    for name, (dtype, shape) in layout.items():
        array = arrays[name]
        fits = array.dtype == dtype and array.ndim == len(shape)
        fits = fits and all(
            n == (known.setdefault(s, n) if isinstance(s, str) else s) for n, s in zip(array.shape, shape, strict=True)
        )
        if version != FORMAT_VERSION or not fits:
            wanted = ", ".join(str(known.get(s, s) if isinstance(s, str) else s) for s in shape)
            raise DataError(
                f"{path.name}: {name}: format {version}, {array.dtype} {array.shape}; expected format {FORMAT_VERSION}, "
                f"{dtype} ({wanted}{',' * (len(shape) == 1)})"
            )
    return arrays


def digest(predictions: Mapping[str, Prediction]) -> str:
    """sha256 over the arrays of every scene (`LAYOUTS`): equal predictions have equal digests, in whatever files they are
    stored."""
    hashed = hashlib.sha256()
    for scene, arrays in sorted(predictions.items()):
        for name, array in sorted(arrays.items()):
            plain = np.ascontiguousarray(array)
            hashed.update(f"{scene} {name} {plain.dtype.str} {plain.shape}\n".encode())
            hashed.update(plain.tobytes())
    return hashed.hexdigest()


def read_untyped(path: Path) -> Prediction:
    """Read the arrays of a prediction file of any kind of task, without its format version. Raises DataError if it is
    unreadable or unpacks to more than MOST_UNTYPED_BYTES."""
    try:
        with open_plain(path) as file:
            unpacked = unpacked_bytes(file)
        if unpacked > MOST_UNTYPED_BYTES:
            raise ValueError(f"{unpacked:,} bytes unpacked")
        with open_plain(path) as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != "format_version"}
    except Exception as error:  # zipfile and numpy raise many exceptions on damaged archives
        raise DataError(f"{path.name}: cannot be read as predictions: {error}") from None


def is_constant(prediction: Prediction) -> bool:
    """Whether a prediction is the same everywhere, or empty: two networks that learnt nothing may agree in such a prediction."""
    return all(array.size == 0 or bool((array == array.flat[0]).all()) for array in prediction.values())


def _most_bytes(kind: str, sizes: Mapping[str, int]) -> int:
    headers = (len(LAYOUTS[kind]) + 1) * HEADER_BYTES
    if kind == "semantic":
        return sizes["V"] + headers
    if kind == "instance":
        return (1 + 4 * MOST_SHARES) * sizes["V"] + 9 * MOST_INSTANCES + headers
    return MOST_BOXES * 4 * (8 + sizes["C"]) + headers
