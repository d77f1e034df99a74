"""Write coloured point clouds as PLY files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_ply(
    path: Path, xyz: NDArray[Any], colours: NDArray[np.uint8], columns: Mapping[str, NDArray[np.integer]] = {}
) -> None:
    """Write points (N, 3) with uint8 colours (N, 3) as binary PLY; `columns` adds integer properties (N,) by name."""
    from plyfile import PlyData, PlyElement

    channels = ("red", "green", "blue")
    kinds = [(a, "f4") for a in "xyz"] + [(c, "u1") for c in channels] + [(name, "i4") for name in columns]
    vertices = np.empty(len(xyz), kinds)
    for axis, name in enumerate("xyz"):
        vertices[name] = xyz[:, axis]
    for channel, name in enumerate(channels):
        vertices[name] = colours[:, channel]
    for name, values in columns.items():
        vertices[name] = values
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(path))
