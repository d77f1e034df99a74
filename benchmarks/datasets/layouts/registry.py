"""All supported layouts: how to recognise a folder, find its scenes, and write one of them in prepared form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.datasets import rgbd_folder, s3dis, scannet, semantickitti, sens, sunrgbd, writers
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layout import is_prepared
from pretrain_bench.benchmarks.datasets.layouts import (
    arkitscenes,
    frames_25k,
    indoor3d,
    mmdetection3d,
    open3d,
    pointcept,
    posed_frames,
    replica,
    seven_scenes,
    tum,
    votenet,
)
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS, LayoutName
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.reading import reading


class Layout(NamedTuple):
    """Functions and facts of a layout. `find` maps scene names to sources; `write` writes one of them (shapes: layout.py) and
    returns the content of its manifest entry. Both can be called in another process. `modules` affect the result. A folder has
    this layout if one of `patterns` matches in it. `share`: upper estimate of prepared bytes per source byte."""

    find: Callable[[Dataset, Path], dict[str, Any]]
    write: Callable[[Dataset, Any, Path, Reading], dict[str, Any]]
    modules: tuple[Any, ...]
    patterns: tuple[str, ...]
    share: float


_ROOMS = (*s3dis.PATTERNS, f"{s3dis.OFFICIAL_FOLDER}/{s3dis.PATTERNS[0]}", *s3dis.OTHER_PLACES)
_SCANS = tuple(f"{pattern}/" for pattern in scannet.PATTERNS)
_SEQUENCES = (*semantickitti.PATTERNS, f"dataset/{semantickitti.PATTERNS[0]}", "*/velodyne")
_RECORDED = (rgbd_folder, posed_frames)
# In order of precedence: first recordings that could also pass for ScanNet's or for plain frames, then the official layouts, then
# derived arrays, which may lie beside the official files.
READERS: dict[LayoutName, Layout] = {
    "scannet-frames-25k": Layout(frames_25k.find, frames_25k.write, (frames_25k, *_RECORDED), frames_25k.PATTERNS, 1.4),
    "7-scenes": Layout(seven_scenes.find, seven_scenes.write, (seven_scenes, *_RECORDED), seven_scenes.PATTERNS, 1.4),
    "tum": Layout(tum.find, tum.write, (tum, *_RECORDED), tum.PATTERNS, 1.4),
    "open3d": Layout(open3d.find, open3d.write, (open3d, *_RECORDED), open3d.PATTERNS, 1.4),
    "replica": Layout(replica.find, replica.write, (replica, *_RECORDED), replica.PATTERNS, 1.4),
    "arkitscenes": Layout(arkitscenes.find, arkitscenes.write, (arkitscenes, *_RECORDED), arkitscenes.PATTERNS, 1.4),
    "s3dis": Layout(writers.find_s3dis, writers.write_s3dis, (s3dis,), _ROOMS, 0.5),
    "semantickitti": Layout(writers.find_semantickitti, writers.write_semantickitti, (semantickitti,), _SEQUENCES, 1.4),
    "sunrgbd": Layout(writers.find_sunrgbd, writers.write_sunrgbd, (sunrgbd,), sunrgbd.PATTERNS, 0.6),
    "scannet": Layout(writers.find_scannet, writers.write_scannet, (scannet, sens, rgbd_folder), _SCANS, 1.4),
    "pointcept": Layout(pointcept.find, pointcept.write, (pointcept, s3dis), pointcept.PATTERNS, 1.0),
    "stanford-indoor3d": Layout(indoor3d.find, indoor3d.write, (indoor3d, s3dis), indoor3d.PATTERNS, 0.6),
    "mmdetection3d": Layout(
        mmdetection3d.find, mmdetection3d.write, (mmdetection3d, votenet, s3dis, scannet), mmdetection3d.PATTERNS, 1.0
    ),
    "votenet": Layout(votenet.find, votenet.write, (votenet, scannet), votenet.PATTERNS, 1.0),
    "rgbd-folder": Layout(writers.find_recordings, writers.write_recording, (rgbd_folder,), rgbd_folder.PATTERNS, 1.4),
}


def layouts_of(root: Path) -> list[LayoutName]:
    """The layouts of a folder, by precedence. Raises DataError if the folder cannot be read."""
    with reading(root):
        return [name for name, reader in READERS.items() if any(_matches(root, p) for p in reader.patterns)]


def detect(root: Path) -> LayoutName:
    """Detect the layout of a folder. Raises DataError, listing the known layouts, if it has none of them."""
    layouts = layouts_of(root)
    if layouts:
        return layouts[0]
    _refuse_pickles(root)
    known = "; ".join(f"{card.title}: {', '.join(READERS[name].patterns[:2])}" for name, card in LAYOUTS.items())
    raise DataError(f"{root}: no supported layout; expected one of these files below it: {known}")


def as_laid_out(dataset: Dataset, root: Path) -> Dataset:
    """The dataset adapted to the layout at `root`: unchanged if it fits, else with the accepted alternative layout and what that
    provides. Raises DataError if the folder holds only pickles."""
    if not root.is_dir() or is_prepared(root):
        return dataset
    layouts = layouts_of(root)
    if not layouts:
        _refuse_pickles(root)
    name = next((n for n in layouts if n == dataset.layout or dataset.layout in LAYOUTS[n].stands_for), dataset.layout)
    if name == dataset.layout:
        return dataset
    return dataset.model_copy(update={"layout": name, "provides": LAYOUTS[name].provides})


def _refuse_pickles(root: Path) -> None:
    pointcept.refuse(root)
    mmdetection3d.refuse(root)


def _matches(root: Path, pattern: str) -> bool:
    return next(iter(root.glob(pattern)), None) is not None
