"""What a stage sees of a prepared dataset: clouds or frames, and labels only where the labelled view is given."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.support.errors import DataError


class Cloud(NamedTuple):
    """xyz (N, 3) float32 metres, z up; rgb (N, 3) uint8, or for a laser float32: its remission times 255, three times over, so
    that the first layer of a network of colours takes it (spec F.5)."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8] | NDArray[np.float32]


class Labels(NamedTuple):
    """semantic (N,) uint8 training ids, 255 for none; instance (N,) int32."""

    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]


class Frame(NamedTuple):
    """colour (H, W, 3) uint8 RGB; depth (H, W) float32 metres, 0 for none; pose (4, 4) camera-to-world;
    intrinsic (3, 3) pixels. Camera frame: x right, y down, z forward."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.float32]
    pose: NDArray[np.float64]
    intrinsic: NDArray[np.float64]


def load_cloud(view: Path, scene: str) -> Cloud:
    """The points of a scene; `view` is the folder that holds `unlabelled/`."""
    folder = view / UNLABELLED / scene
    if (folder / "remission.npy").is_file():
        remission = np.clip(_load(folder / "remission.npy"), 0, 1).astype(np.float32) * np.float32(255)
        return Cloud(_load(folder / "xyz.npy"), np.repeat(remission[:, None], 3, axis=1))
    return Cloud(_load(folder / "xyz.npy"), _load(folder / "rgb.npy"))


def load_labels(view: Path, scene: str) -> Labels:
    """The labels of a scene. Raises DataError in a stage that was not given the labelled view."""
    folder = view / LABELLED / scene
    return Labels(_load(folder / "semantic.npy"), _load(folder / "instance.npy"))


def load_boxes(view: Path, scene: str) -> NDArray[np.float32]:
    """(K, 8) centre, full size, heading and class of the objects of a scene, metres and radians, along the axes that
    `load_alignment` leads to. Raises DataError as `load_labels`."""
    return _load(view / LABELLED / scene / "boxes.npy")


def load_alignment(view: Path, scene: str) -> NDArray[np.float64]:
    """(4, 4) from the axes of the points to those of the boxes; the identity where a dataset has the same for both."""
    path = view / LABELLED / scene / "alignment.npy"
    return np.asarray(_load(path)) if path.is_file() else np.eye(4)


def load_aligned_cloud(view: Path, scene: str) -> tuple[NDArray[np.float64], NDArray]:
    """The points (N, 3) of a scene along the axes of its boxes, and their colours. Raises DataError as `load_labels`."""
    cloud, alignment = load_cloud(view, scene), load_alignment(view, scene)
    xyz = np.asarray(cloud.xyz, np.float64) @ alignment[:3, :3].T + alignment[:3, 3]
    return xyz, np.asarray(cloud.rgb)


def has_instances(view: Path, scene: str) -> bool:
    """Whether the labels of a scene tell points of different objects apart."""
    return (view / LABELLED / scene / "instance.npy").is_file()


def list_frames(view: Path, scenes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(scene, index) of every frame, in the order of `scenes`."""
    return [(s, i) for s in scenes for i in range(len(_load(view / UNLABELLED / s / "poses.npy")))]


def load_frame(view: Path, scene: str, index: int) -> Frame:
    """One RGB-D frame; colour is resized (bilinear) to the depth image where the sizes differ."""
    from PIL import Image

    folder = view / UNLABELLED / scene
    stem = folder / "frames" / f"{index:06d}"
    colour_path = next((p for p in (stem.with_suffix(".jpg"), stem.with_suffix(".png")) if p.is_file()), None)
    if colour_path is None:
        raise DataError(f"{stem}.jpg: no such file; prepare the dataset again")
    depth_path = stem.with_suffix(".depth.png")
    millimetres = images.decode_depth(depth_path, str(depth_path))
    pixels = images.decode_colour(colour_path, str(colour_path))
    if pixels.shape[:2] != millimetres.shape:
        size = (millimetres.shape[1], millimetres.shape[0])
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    depth = np.where(millimetres == 65535, 0, millimetres).astype(np.float32) / np.float32(1000)
    return Frame(pixels, depth, _load(folder / "poses.npy")[index], _load(folder / "intrinsic.npy"))


def _load(path: Path) -> NDArray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; this view of the dataset does not hold it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a numpy array: {error}") from None
