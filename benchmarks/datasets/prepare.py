"""From an official layout to the prepared form, once, scene by scene, in as many processes as there are CPUs.

A scene is written beside its place and renamed into it when whole, and so is the dataset: whoever looks sees all of it
or nothing, and a preparation that was killed resumes where it stopped. A scene that cannot be read is left out and told, unless
`strict`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.datasets import holdings, images, layout, pairs, parts, writers
from pretrain_bench.benchmarks.datasets.holdings import classes_held, left_out_entry
from pretrain_bench.benchmarks.datasets.layout import (
    LABELLED,
    MANIFEST,
    UNLABELLED,
    FileEntry,
    Manifest,
    SceneEntry,
    hash_files,
    read_manifest,
)
from pretrain_bench.benchmarks.datasets.writers import FINDERS, WRITERS, Reading
from pretrain_bench.benchmarks.input import voxelise as voxelize
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError, EnvironmentCannot
from pretrain_bench.benchmarks.support.files import copy_tree, link_or_copy, notice_of_missing_links, readable
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.benchmarks.support.process_limits import usable_cpus
from pretrain_bench.benchmarks.support.processes import process_pool
from pretrain_bench.benchmarks.support.reading import read_or_write_error, reading, source_files

Progress = Callable[[Iterable[str]], Iterable[str]]
Say = Callable[[str], None]

# Prepared bytes for each byte of the source, upwards: text shrinks, every n-th frame only is taken.
_SHARE = {"s3dis": 0.5, "rgbd-folder": 1.1, "scannet": 1.1, "semantickitti": 1.4, "sunrgbd": 0.6}
_PARALLEL_FROM = 3
ANNOUNCED_BYTES = 100_000_000


def prepare(
    dataset: Dataset,
    root: Path,
    cache: Path,
    *,
    frame_stride: int,
    strict: bool,
    progress: Progress,
    say: Say = lambda line: None,
) -> Path:
    """Prepare `dataset` from its official layout at `root`; returns the prepared folder below `cache`.

    A folder that is prepared already (it has a manifest) is returned as it is. `frame_stride` applies to frame numbers
    of recordings. Raises DataError naming the file, EnvironmentCannot when the disk is full or not writable.
    """
    with reading(root):
        is_folder, is_prepared = root.is_dir(), (root / MANIFEST).is_file()
    if not is_folder:
        raise DataError(
            f"{dataset.name}: data root {root} is not a folder; give the one that holds the official layout"
        )
    if is_prepared:
        manifest = read_manifest(root)
        if manifest.dataset != dataset.name:
            raise DataError(f"{root}: prepared as {manifest.dataset!r}, but asked for as {dataset.name!r}")
        return root
    root = root.resolve()
    how = Reading(frame_stride, strict)
    target = _target(dataset, root, how, cache)
    if (target / MANIFEST).is_file():
        return target
    try:
        with exclusive(target.with_name(target.name + ".lock")):
            if (target / MANIFEST).is_file():
                return target
            return _prepare_into(target, Source(dataset, root, how), progress, say)
    except OSError as error:
        raise read_or_write_error(error, root, target, f"preparing {dataset.name}") from error


def prepared_already(dataset: Dataset, root: Path, cache: Path, frame_stride: int) -> Path | None:
    """The folder that `prepare` would give at once, strictly read or not; None where there is none yet."""
    if (root / MANIFEST).is_file():
        return root
    for strict in (False, True):
        target = _target(dataset, root.resolve(), Reading(frame_stride, strict), cache)
        if (target / MANIFEST).is_file():
            return target
    return None


def _target(dataset: Dataset, root: Path, how: Reading, cache: Path) -> Path:
    return cache / "prepared" / f"{dataset.name}-{_source_fingerprint(dataset, root, how, cache)}"


class Source(NamedTuple):
    """A dataset at its root folder, and how it is read."""

    dataset: Dataset
    root: Path
    how: Reading


def _prepare_into(target: Path, source: Source, progress: Progress, say: Say) -> Path:
    dataset, root = source.dataset, source.root
    with reading(root):
        sources = FINDERS[dataset.layout](dataset, root)
    for name in sources:
        if name != readable(name):
            raise DataError(f"{root}: scene {name}: its folder's name is not UTF-8; rename the folder")
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if notice := notice_of_missing_links(partial.parent, "hard"):
        say(notice)
    todo = {n: s for n, s in sources.items() if not (partial / "scenes" / n / "scene.json").is_file()}
    if len(sources) >= _PARALLEL_FROM:
        _announce(source, partial, len(todo), len(sources), say)
    failed = _write_all(source, todo, partial, progress)
    if len(failed) == len(sources):
        raise DataError(next(iter(failed.values())))
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    scenes, files = [], {}
    problems = [f"scene {n} is left out: {message}" for n, message in sorted(failed.items())]
    for name in sorted(set(sources) - set(failed)):
        done = partial / "scenes" / name
        info = json.loads((done / "scene.json").read_text())
        problems += info.pop("problems")
        files.update({f"{v}/{name}/{f}": FileEntry(**e) for v, f, e in info.pop("files")})
        scenes.append(SceneEntry(name=name, **info))
        for view in (UNLABELLED, LABELLED):
            if (done / view).is_dir():
                copy_tree(done / view, final / view / name, link_or_copy)
    manifest = Manifest(
        dataset=dataset.name,
        synthetic=dataset.synthetic,
        scenes=tuple(scenes),
        files=dict(sorted(files.items())),
        # No path of this machine: the manifest, and its hash, are the same wherever the data lie.
        problems=tuple(readable(p.replace(f"{root}{os.sep}", "")) for p in problems),
        left_out=tuple(left_out_entry(name, sources[name]) for name in sorted(failed)),
    )
    (final / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    os.replace(final, target)
    shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_all(source: Source, todo: dict[str, Any], partial: Path, progress: Progress) -> dict[str, str]:
    """Write scenes; returns the message of each that cannot be read. The first of those is raised where `strict`."""
    failed: dict[str, str] = {}

    def done(name: str, result: Callable[[], None]) -> str:
        try:
            result()
        except DataError as error:
            if source.how.strict:
                raise
            failed[name] = str(error)
        return name

    workers = min(usable_cpus(), 16, len(todo))
    if len(todo) < _PARALLEL_FROM or workers < 2:
        for name in progress(sorted(todo)):
            done(name, lambda name=name: write_scene(source, name, todo[name], partial))  # type: ignore[misc]
        return failed
    with process_pool(workers) as pool:
        jobs: dict[Future[None], str] = {pool.submit(write_scene, source, n, todo[n], partial): n for n in sorted(todo)}
        try:
            # The bar wants to know its length, so it runs over the names, each of which stands for one more that is done.
            ended = as_completed(jobs)
            for _ in progress(sorted(todo)):
                job = next(ended)
                done(jobs[job], job.result)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failed


def write_scene(source: Source, name: str, scene: Any, partial: Path) -> None:
    """Write one scene and the hashes of its files, and rename it into `partial/scenes` when it is whole."""
    dataset, root, how = source
    # A process of its own folder: one whose parent was killed may still be at work on the same scene.
    unfinished = partial / "unfinished" / f"{name}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        info = WRITERS[dataset.layout](dataset, scene, unfinished, how)
    except OSError as error:
        raise read_or_write_error(error, root, partial, f"preparing {dataset.name}") from error
    info |= classes_held(unfinished / LABELLED, dataset)
    files = [
        (view, path.removeprefix(f"{view}/"), entry.model_dump())
        for path, entry in hash_files(unfinished).items()
        for view in (path.partition("/")[0],)
    ]
    (unfinished / "scene.json").write_text(json.dumps({**info, "files": files}))
    place = partial / "scenes" / name
    place.parent.mkdir(exist_ok=True)
    if not place.is_dir():
        os.replace(unfinished, place)


def _announce(source: Source, partial: Path, todo: int, scenes: int, say: Say) -> None:
    """Say how much disk `todo` of the scenes may take; refuse where there is less."""
    dataset, root, how = source
    share = _SHARE[dataset.layout]
    if dataset.layout in ("rgbd-folder", "scannet"):
        share = 0.15 + share / how.frame_stride
    need = share * sum(size for _, size, _ in source_files(root, partial.parent)) * todo / max(1, scenes)
    free = shutil.disk_usage(partial).free
    if need > ANNOUNCED_BYTES:
        gigabytes = f"at most about {need / 1e9:.1f} GB; {free / 1e9:.1f} GB free"
        say(f"{dataset.name}: {todo} of {scenes} scenes to prepare, {gigabytes}")
    if need > free:
        raise EnvironmentCannot(
            f"preparing {dataset.name} may take {need / 1e9:.1f} GB and {partial.parent} has {free / 1e9:.1f} GB free; "
            "set BENCH_CACHE to a folder with more"
        )


def _source_fingerprint(dataset: Dataset, root: Path, how: Reading, cache: Path) -> str:
    """Names the prepared folder: what the source looks like from outside, and how it is read."""
    digest = hashlib.sha256(f"{dataset.model_dump_json()} {how.frame_stride} {how.strict}".encode())
    readers = {"rgbd-folder": ("rgbd_folder",), "scannet": ("scannet", "sens", "rgbd_folder")}
    own = [
        importlib.import_module(f"pretrain_bench.benchmarks.datasets.{name}")
        for name in readers.get(dataset.layout, (dataset.layout,))
    ]
    for module in (layout, holdings, images, pairs, parts, writers, voxelize, *own):
        digest.update(Path(module.__file__ or "").read_bytes())
    digest.update(Path(__file__).read_bytes())
    for name, size, time in sorted(source_files(root, cache / "prepared")):
        digest.update(os.fsencode(f"{name} {size} {time}\n"))
    return digest.hexdigest()[:16]
