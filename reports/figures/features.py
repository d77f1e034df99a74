"""Features as colours: a one-dimensional t-SNE of pixel and point features together (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.ply import write_ply

Array = NDArray[Any]
SAMPLED_ROWS = 1500
PERPLEXITY = 30.0
WHEN = ("before", "after")


def feature_colours(groups: list[Array], seed: int = 0) -> list[NDArray[np.uint8]]:
    """(N, 3) colours for each group of features (N, C): one t-SNE of all groups, on up to SAMPLED_ROWS of each.

    Features are compared by direction. A row that was not sampled has the colour of the nearest sampled one. Colours follow the
    rank of the embedding, so that each is used equally often.
    """
    import matplotlib
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    unit = [g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-12) for g in groups]
    sample = np.concatenate([u[rng.permutation(len(u))[:SAMPLED_ROWS]] for u in unit])
    perplexity = min(PERPLEXITY, (len(sample) - 1) / 3)
    # Not from PCA: with equal features it starts all points at one place, which crashes the tree of t-SNE.
    place = TSNE(n_components=1, perplexity=perplexity, init="random", random_state=seed).fit_transform(sample)[:, 0]
    rank = np.argsort(np.argsort(place, kind="stable"), kind="stable") / max(1, len(place) - 1)
    colours = (matplotlib.colormaps["turbo"](rank)[:, :3] * 255).astype(np.uint8)
    return [colours[nearest(u, sample)] for u in unit]


def nearest(rows: Array, sample: Array, block: int = 4096) -> NDArray[np.int64]:
    """(N,) index of the sampled row with the largest inner product, for each row."""
    parts = [(rows[i : i + block] @ sample.T).argmax(axis=1) for i in range(0, len(rows), block)]
    return np.concatenate(parts)


def draw_features(arrays: Mapping[str, Array], title: str, out: Path) -> list[Path]:
    """Write features.png and one coloured PLY each for before and after, from the arrays of `methods.features`. Returns
    the paths."""
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
        point_colours = colours[0][arrays["voxel"]]
        _picture(row[0], arrays["image"], "image")
        _picture(row[1], _as_seen(arrays, arrays["rgb"]), "points with depth")
        _picture(row[2], _as_seen(arrays, point_colours), f"point features, {when}")
        if with_pixels:
            side = arrays["crop"].shape[:2]
            _picture(row[3], colours[1].reshape(*side, 3), f"pixel features of the crop, {when}")
        path = out / f"features-{when}.ply"
        write_ply(path, arrays["xyz"], point_colours)
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
    """The camera image with points in other colours; white where there is no depth."""
    canvas = np.full(arrays["image"].shape, 255, np.uint8)
    canvas[arrays["uv"][:, 1], arrays["uv"][:, 0]] = colours
    return canvas
