"""Find incomplete file sets: scans, views or frames that lack one of their files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.datasets.rgbd_folder import Recording
from pretrain_bench.benchmarks.datasets.scannet import SceneSource
from pretrain_bench.benchmarks.datasets.semantickitti import ScanPaths
from pretrain_bench.benchmarks.datasets.sunrgbd import Prepared
from pretrain_bench.benchmarks.datasets.value_checks import Finding, Problem
from pretrain_bench.benchmarks.support.user_files import list_folder


def lost_files(sources: Mapping[str, Any]) -> list[Problem]:
    """Report incomplete file sets; `sources` is the result of a layout's `find`.

    Gives a Finding for each kind of orphan (a label without its scan), and one line where only some of the scenes have an
    optional file (a recording, a picture).
    """
    problems: list[Problem] = []
    for folder, name, others in sorted(_sets(sources)):
        numbers = {n for path in list_folder(folder) if (n := _number(path, name)) is not None}
        for other in others:
            orphans = [p for p in list_folder(other[0]) if (n := _number(p, other[1])) is not None and n not in numbers]
            if orphans:
                what = f"file of {other[0].name}/ without a matching file in {folder.name}/"
                problems.append(Finding(what, str(orphans[0]), f"{len(orphans)} such files"))
    return problems + _uneven(sources)


def _sets(sources: Mapping[str, Any]) -> set[tuple[Path, str, tuple[tuple[Path, str], ...]]]:
    """(folder, file-name pattern) of the primary file of each set, and the same of its other files; group 1 is the number."""
    sets = set()
    for source in sources.values():
        if isinstance(source, ScanPaths):
            folder, plain = source.points.parent, r"(\d+)\.(?:label|png|jpe?g)"
            sets.add((folder, r"(\d+)\.bin", tuple((folder.parent / f, plain) for f in ("labels", "image_2"))))
        elif isinstance(source, Prepared):
            plain = r"(\d+)\.(?:txt|jpe?g)"
            others = tuple((source.folder / f, plain) for f in ("image", "calib", source.labels.parent.name))
            sets.add((source.folder / "depth", r"(\d+)\.mat", others))
        elif isinstance(source, Recording):
            folder = source.frames[0].colour.parent
            if folder.name == "color":
                sets.add(
                    (
                        folder,
                        r"(\d+)\.(?:png|jpe?g)",
                        tuple((folder.parent / f, r"(\d+)\.(?:png|txt)") for f in ("depth", "pose")),
                    )
                )
            else:
                sets.add(
                    (
                        folder,
                        r"frame-(\d+)\.color\.(?:png|jpe?g)",
                        ((folder, r"frame-(\d+)\.(?:depth\.png|pose\.txt)"),),
                    )
                )
    return sets


def _uneven(sources: Mapping[str, Any]) -> list[Problem]:
    """A line where only some scans have a picture, or only some ScanNet scenes a recording."""
    pictures = {n: s.image is not None for n, s in sources.items() if isinstance(s, ScanPaths)}
    streams = {
        name: (folder / f"{name}.sens").is_file() or (folder / "color").is_dir()
        for name, folder in ((n, s.folder) for n, s in sources.items() if isinstance(s, SceneSource))
    }
    problems: list[Problem] = []
    for held, what in ((pictures, "scans have no picture in image_2"), (streams, "scenes have no recording (.sens)")):
        without = sorted(n for n, has in held.items() if not has)
        if 0 < len(without) < len(held):
            problems.append(f"{len(without)} of {len(held)} {what}, first {without[0]}; pre-training skips them")
    return problems


def _number(path: Path, pattern: str) -> int | None:
    match = re.fullmatch(pattern, path.name, re.IGNORECASE)
    return int(match[1]) if match else None
