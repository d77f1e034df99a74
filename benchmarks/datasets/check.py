"""Verify a prepared dataset against its manifest, and count its labels by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, FileEntry, Manifest, file_entry
from pretrain_bench.benchmarks.specs.dataset import Dataset

Progress = Callable[[Iterable[str]], Iterable[str]]
_compared: set[tuple[str, str, int, int, int, int]] = set()
"""States (path, sha256, size, times, inode) of files that matched their manifest when this process last hashed them."""


def verify(prepared: Path, manifest: Manifest, progress: Progress) -> list[str]:
    """Compare a prepared dataset with its manifest: one line for each missing, changed or unlisted file."""
    problems = []
    with ThreadPoolExecutor() as pool:
        jobs = {name: pool.submit(_check, prepared / name, entry) for name, entry in manifest.files.items()}
        for name in progress(list(jobs)):
            if (problem := jobs[name].result()) is not None:
                problems.append(f"{name}: {problem}")
    there = {
        p.relative_to(prepared).as_posix()
        for view in (UNLABELLED, LABELLED)
        for p in (prepared / view).rglob("*")
        if not p.is_dir()
    }
    return problems + [f"{name}: not in the manifest" for name in sorted(there - set(manifest.files))]


def changed_files(
    prepared: Path, manifest: Manifest, scenes: Iterable[str], views: tuple[str, ...] = (LABELLED,)
) -> Iterator[str]:
    """Yield one line for each file of `scenes`, in `views`, that differs from the manifest.

    A file that this process has verified before is hashed again only if its size, times or inode changed.
    """
    wanted = {f"{view}/{scene}/" for scene in scenes for view in views}
    for name, entry in manifest.files.items():
        view, scene, _ = name.split("/", 2)
        if f"{view}/{scene}/" in wanted and (problem := _check_once(prepared / name, entry)) is not None:
            yield f"{prepared / name}: {problem}"


def _check_once(path: Path, entry: FileEntry) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return _check(path, entry)
    state = (str(path), entry.sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    if state in _compared:
        return None
    problem = _check(path, entry)
    if problem is None:
        _compared.add(state)
    return problem


def _check(path: Path, entry: FileEntry) -> str | None:
    try:
        actual = file_entry(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if actual.bytes != entry.bytes:
        return f"{actual.bytes} bytes, the manifest says {entry.bytes}"
    return None if actual == entry else "its content has changed (sha256 differs)"


def class_counts(prepared: Path, manifest: Manifest, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Count labels over all scenes: (classes,) int64 points or boxes by class, and the number of unclassified points.

    If the dataset provides point labels, all points of a scene without a label file count as unclassified.
    """
    classes, of_points = len(dataset.classes), "labels" in dataset.provides
    counts, without_class = np.zeros(classes, np.int64), 0
    for scene in manifest.scenes:
        folder = prepared / LABELLED / scene.name
        if (folder / "semantic.npy").is_file():
            counted = np.bincount(np.load(folder / "semantic.npy", allow_pickle=False), minlength=256)
            counts += counted[:classes]
            without_class += int(counted[classes:].sum())
        elif of_points:
            without_class += scene.points
        elif (folder / "boxes.npy").is_file():
            boxes = np.load(folder / "boxes.npy", allow_pickle=False)
            counts += np.bincount(boxes[:, 7].astype(int), minlength=classes)[:classes]
    return counts, without_class
