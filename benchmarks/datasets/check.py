"""Is a prepared dataset still what its manifest says; and what does it hold, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, FileEntry, Manifest, file_entry
from pretrain_bench.benchmarks.specs.dataset import Dataset

Progress = Callable[[Iterable[str]], Iterable[str]]


def verify(prepared: Path, manifest: Manifest, progress: Progress) -> list[str]:
    """One line for every file that is missing, changed in a single bit, or there without being in the manifest."""
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
    """((classes,) points or boxes of each class, points without a class) over all scenes. Where the dataset has labels of points,
    every point of a scene whose labels are missing is one without a class."""
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
