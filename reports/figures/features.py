"""Show features as colours: a one-dimensional t-SNE of pixel and point features together (the paper's Figure 2)."""

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
    """(N, 3) uint8 colours for each group of features (N, C), from one t-SNE of all groups on up to SAMPLED_ROWS of each.

    Features are compared by direction. A row outside the sample takes the colour of the nearest sampled row. Colours follow the
    rank of the embedding, so that all colours are used equally often.
    """
    import matplotlib
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    unit = [g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-12) for g in groups]
    sample = np.concatenate([u[rng.permutation(len(u))[:SAMPLED_ROWS]] for u in unit])
    perplexity = min(PERPLEXITY, (len(sample) - 1) / 3)
    # Not initialised by PCA: equal features would start all points at one place, which crashes the tree of t-SNE.
    place = TSNE(n_components=1, perplexity=perplexity, init="random", random_state=seed).fit_transform(sample)[:, 0]
    rank = np.argsort(np.argsort(place, kind="stable"), kind="stable") / max(1, len(place) - 1)
    colours = (matplotlib.colormaps["turbo"](rank)[:, :3] * 255).astype(np.uint8)
    return [colours[nearest(u, sample)] for u in unit]


def nearest(rows: Array, sample: Array, block: int = 4096) -> NDArray[np.int64]:
    """(N,) for each row the index of the sampled row with the largest inner product."""
    parts = [(rows[i : i + block] @ sample.T).argmax(axis=1) for i in range(0, len(rows), block)]
    return np.concatenate(parts)


def draw_features(frames: Mapping[int, Mapping[str, Array]], title: str, out: Path) -> list[Path]:
    """Write features.png, and one coloured PLY for each frame before and after training, from the arrays of `methods.features` by
    frame. Returns the paths.

    Each frame has two rows: the image above its points with depth, then features before training above those after it. The
    colours before come from one t-SNE of all frames, and so do those after. Compare colours along a row and between frames,
    but not between before and after.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    with_pixels = all("crop" in arrays for arrays in frames.values())
    columns = 4 if with_pixels else 2
    size = (2.75 * columns, 2.6 * 2 * len(frames))
    figure, axes = plt.subplots(2 * len(frames), columns, figsize=size, layout="constrained", squeeze=False)
    written = []
    for row, when in enumerate(WHEN):
        points, pixels = _coloured(frames, when, with_pixels)
        for number, (name, arrays) in enumerate(frames.items()):
            place = axes[2 * number + row]
            seen = arrays["image"] if row == 0 else _as_seen(arrays, arrays["rgb"])
            _picture(place[0], seen, f"frame {name}" if row == 0 else f"frame {name}: points with depth")
            colours = points[number][arrays["voxel"]]
            _picture(place[1], _as_seen(arrays, colours), f"point features, {when}")
            if with_pixels:
                crop = arrays["crop"]
                _picture(place[2], pixels[number].reshape(crop.shape), f"pixel features of the crop, {when}")
                if row == 0:
                    _picture(place[3], crop, "the crop")
                else:
                    place[3].axis("off")
            path = out / (f"features-{when}.ply" if len(frames) == 1 else f"features-{name}-{when}.ply")
            write_ply(path, arrays["xyz"], colours)
            written.append(path)
    figure.suptitle(title, fontsize=10)
    path = out / "features.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return [path, *written]


def _coloured(
    frames: Mapping[int, Mapping[str, Array]], when: str, with_pixels: bool
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Colours of the voxels of each frame, and of the pixels of each crop, from one t-SNE."""
    groups = [arrays[f"points_{when}"] for arrays in frames.values()]
    if with_pixels:
        maps = [arrays[f"pixels_{when}"] for arrays in frames.values()]
        groups += [m.reshape(-1, m.shape[-1]) for m in maps]
    colours = feature_colours(groups)
    return colours[: len(frames)], colours[len(frames) :]


def _picture(axes: Any, image: Array, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _as_seen(arrays: Mapping[str, Array], colours: Array) -> NDArray[np.uint8]:
    """The camera image with points recoloured; white where depth is missing."""
    canvas = np.full(arrays["image"].shape, 255, np.uint8)
    canvas[arrays["uv"][:, 1], arrays["uv"][:, 0]] = colours
    return canvas
