"""Features as colours: a one-dimensional t-SNE of pixel and point features together (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SAMPLED_ROWS = 1500
PERPLEXITY = 30.0
WHEN = ("before", "after")


def feature_colours(groups: list[Array], seed: int = 0) -> list[NDArray[np.uint8]]:
    """(N, 3) colours for each group of features (N, C): one t-SNE of all groups, on up to SAMPLED_ROWS of each.

    Features are compared by direction. A row that was not sampled takes the place of the sampled one nearest to it; places
    become colours by their rank, so that every colour is used equally often.
    """
    import matplotlib
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    unit = [g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-12) for g in groups]
    sample = np.concatenate([u[rng.permutation(len(u))[:SAMPLED_ROWS]] for u in unit])
    perplexity = min(PERPLEXITY, (len(sample) - 1) / 3)
    # Not from PCA: where all features are equal it starts all points in one place, which the tree of t-SNE does not survive.
    place = TSNE(n_components=1, perplexity=perplexity, init="random", random_state=seed).fit_transform(sample)[:, 0]
    rank = np.argsort(np.argsort(place, kind="stable"), kind="stable") / max(1, len(place) - 1)
    colours = (matplotlib.colormaps["turbo"](rank)[:, :3] * 255).astype(np.uint8)
    return [colours[nearest(u, sample)] for u in unit]


def nearest(rows: Array, sample: Array, block: int = 4096) -> NDArray[np.int64]:
    """(N,) the sampled row of the largest inner product with each row."""
    parts = [(rows[i : i + block] @ sample.T).argmax(axis=1) for i in range(0, len(rows), block)]
    return np.concatenate(parts)


def draw_features(arrays: Mapping[str, Array], title: str, out: Path) -> list[Path]:
    """Write features.png and a coloured PLY before and after, from the arrays of `methods.features`; the paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    with_pixels = "crop" in arrays
    figure, axes = plt.subplots(
        2, 4 if with_pixels else 3, figsize=(11 if with_pixels else 8.5, 5.2), layout="constrained"
    )
    written = []
    for row, when in zip(axes, WHEN, strict=True):
        groups = [arrays[f"points_{when}"]]
        if with_pixels:
            maps = arrays[f"pixels_{when}"]
            groups.append(maps.reshape(-1, maps.shape[-1]))
        colours = feature_colours(groups)
        of_points = colours[0][arrays["voxel"]]
        _picture(row[0], arrays["image"], "image")
        _picture(row[1], _as_seen(arrays, arrays["rgb"]), "points with depth")
        _picture(row[2], _as_seen(arrays, of_points), f"point features, {when}")
        if with_pixels:
            side = arrays["crop"].shape[:2]
            _picture(row[3], colours[1].reshape(*side, 3), f"pixel features of the crop, {when}")
        path = out / f"features-{when}.ply"
        write_ply(path, arrays["xyz"], of_points)
        written.append(path)
    figure.suptitle(title, fontsize=10)
    path = out / "features.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return [path, *written]


def _picture(axes: Any, image: Array, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _as_seen(arrays: Mapping[str, Array], colours: Array) -> NDArray[np.uint8]:
    """The image that the camera would see of points in other colours; white where there is no depth."""
    canvas = np.full(arrays["image"].shape, 255, np.uint8)
    canvas[arrays["uv"][:, 1], arrays["uv"][:, 0]] = colours
    return canvas


def write_ply(path: Path, xyz: Array, colours: NDArray[np.uint8]) -> None:
    """Points (N, 3) with colours (N, 3) as a binary PLY that any viewer opens."""
    from plyfile import PlyData, PlyElement

    table = np.empty(len(xyz), dtype=[(a, "f4") for a in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for axis, name in enumerate("xyz"):
        table[name] = xyz[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        table[name] = colours[:, channel]
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
