"""Saved predictions: one compressed file a scene, with a format version. Read without trust: no pickles, sizes capped."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import DataError

FORMAT_VERSION = 1
HEADER_BYTES = 1024


def write_semantic(folder: Path, predictions: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write (V,) uint8 class ids per scene as `<folder>/<scene>.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene, classes in predictions.items():
        temporary = folder / f"{scene}.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, format_version=np.uint8(FORMAT_VERSION), classes=classes.astype(np.uint8))
        os.replace(temporary, folder / f"{scene}.npz")


def read_semantic(folder: Path, scene: str, expected: int) -> NDArray[np.uint8]:
    """(expected,) uint8 class ids of one scene. Raises DataError for a file that is missing, damaged or of another
    length: predictions of another voxel size or task."""
    path = folder / f"{scene}.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > expected + 2 * HEADER_BYTES:
            raise ValueError(f"{unpacked:,} bytes unpacked, expected {expected:,} and two headers")
        with np.load(path, allow_pickle=False) as archive:
            version, classes = int(archive["format_version"]), archive["classes"]
    except FileNotFoundError:
        raise DataError(f"{path.name}: no predictions for scene {scene}") from None
    except Exception as error:  # zipfile and numpy raise many kinds for damaged archives
        raise DataError(f"{path.name}: cannot be read as predictions: {error}") from None
    if version != FORMAT_VERSION or classes.dtype != np.uint8 or classes.shape != (expected,):
        raise DataError(
            f"{path.name}: format {version}, {classes.dtype} {classes.shape}; expected format {FORMAT_VERSION}, "
            f"uint8 ({expected},)"
        )
    return classes
