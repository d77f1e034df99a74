"""Check that a prepared dataset still matches its originals, by preparing them again and comparing scene by scene."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.datasets.layout import FileEntry, Manifest
from pretrain_bench.benchmarks.datasets.prepare import Source, each_scene, find_sources, worker_count, write_scene
from pretrain_bench.benchmarks.datasets.recording_pairs import finish_pairs

SHOWN = 3
Progress = Callable[[Iterable[str]], Iterable[str]]


def verify_source(source: Source, manifest: Manifest, scratch: Path, progress: Progress) -> list[str]:
    """One line for each prepared file that the originals no longer produce, and for scenes that only one of the two has.

    Scenes are prepared again below `scratch`, one at a time on each CPU, and then removed. Raises DataError if the originals hold
    no scene.
    """
    sources = find_sources(source)
    before: dict[str, dict[str, FileEntry]] = {scene.name: {} for scene in manifest.scenes}
    for path, entry in manifest.files.items():
        _, scene, _ = path.split("/", 2)
        before[scene][path] = entry
    with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as folder:
        now, failed = each_scene(source, sources, Path(folder), progress, written_again)
    lines = [f"{name}: the originals do not hold this scene" for name in before if name not in sources]
    lines += [f"{name}: the originals cannot be read: {failed[name]}" for name in sorted(failed) if name in before]
    for name in sorted(now.keys() & before.keys()):
        lines += _differences(before[name], now[name])
    if added := sorted(now.keys() - before.keys()):
        names = ", ".join(added[:SHOWN]) + (", ..." if len(added) > SHOWN else "")
        lines.append(f"{len(added)} scenes of the originals are not prepared: {names}")
    return lines


def written_again(source: Source, name: str, scene: Any, folder: Path) -> dict[str, FileEntry]:
    """Prepare a scene again; return its files by path relative to a prepared dataset. `folder` is emptied afterwards."""
    write_scene(source, name, scene, folder)
    place = folder / "scenes" / name
    alone = multiprocessing.parent_process() is None
    finish_pairs([place], worker_count() if alone else 1, lambda title: lambda items: items)
    files = json.loads((place / "scene.json").read_text())["files"]
    shutil.rmtree(place)
    return {f"{view}/{name}/{path}": FileEntry(**entry) for view, path, entry in files}


def _differences(before: dict[str, FileEntry], now: dict[str, FileEntry]) -> list[str]:
    lines = []
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            lines.append(f"{path}: the originals do not produce this file")
        elif path not in before:
            lines.append(f"{path}: the originals produce this file, which is not prepared")
        elif before[path] != now[path]:
            lines.append(f"{path}: the originals now produce different content")
    return lines
