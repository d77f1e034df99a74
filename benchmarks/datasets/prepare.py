"""Convert an official layout to the prepared form, once, scene by scene, with one process for each CPU.

Each scene, and the whole dataset, is written elsewhere and renamed into place when complete. Readers therefore see all of it or
nothing, and a killed preparation resumes where it stopped. Scenes that cannot be read are left out and reported, or raise with
`strict`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.datasets import (
    companions,
    frame_writer,
    gravity,
    holdings,
    images,
    layout,
    overlaps,
    pairs,
    parts,
    recording_checks,
    recording_pairs,
    recordings,
    sampled_frames,
    splits,
    value_checks,
    writers,
)
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.holdings import classes_held, left_out_entry
from pretrain_bench.benchmarks.datasets.layout import (
    LABELLED,
    MANIFEST,
    UNLABELLED,
    FileEntry,
    Manifest,
    SceneEntry,
    hash_files,
    is_prepared,
    read_manifest,
)
from pretrain_bench.benchmarks.datasets.layouts import arrays
from pretrain_bench.benchmarks.datasets.layouts.registry import READERS
from pretrain_bench.benchmarks.datasets.parts import as_error
from pretrain_bench.benchmarks.datasets.problems import why_none
from pretrain_bench.benchmarks.datasets.recording_pairs import BarFor, finish_pairs
from pretrain_bench.benchmarks.datasets.source_files import source_digest, source_files
from pretrain_bench.benchmarks.datasets.value_checks import Finding, Problem
from pretrain_bench.benchmarks.input import voxelise as voxelize
from pretrain_bench.benchmarks.specs.dataset import Dataset, UpChoice
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS
from pretrain_bench.benchmarks.support import user_files
from pretrain_bench.benchmarks.support.errors import DataError, EnvironmentCannot
from pretrain_bench.benchmarks.support.files import (
    copy_tree,
    link_or_copy,
    notice_of_missing_links,
    readable,
    whole_folder,
)
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.benchmarks.support.process_limits import usable_cpus
from pretrain_bench.benchmarks.support.processes import process_pool
from pretrain_bench.benchmarks.support.reading import read_or_write_error, reading

Progress = Callable[[Iterable[str]], Iterable[str]]
Say = Callable[[str], None]

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
    up: UpChoice = "auto",
    bar_for: BarFor = lambda title: lambda items: items,
) -> Path:
    """Prepare `dataset` from its official layout at `root`, and return the prepared folder below `cache`.

    A folder that is prepared already (it has a manifest) is returned unchanged. `frame_stride` applies to frame numbers of
    recordings. `progress` wraps the scenes, and `bar_for` makes a wrapper, from a title, for the frames and pairs of a long
    recording. `up` gives the up direction of recordings whose layout leaves it open.

    Raises DataError naming the file, and EnvironmentCannot if the disk is full or not writable.
    """
    with reading(root):
        is_folder, prepared_here = root.is_dir(), is_prepared(root)
    if not is_folder:
        raise DataError(
            f"{dataset.name}: data root {root} is not a folder; give the folder that holds the official layout"
        )
    if prepared_here:
        manifest = read_manifest(root)
        if manifest.dataset != dataset.name:
            raise DataError(f"{root}: prepared as {manifest.dataset!r}, but asked for as {dataset.name!r}")
        return root
    root = root.resolve()
    how = Reading(frame_stride, strict, up)
    look_at_layout(Source(dataset, root, how))
    target = _target(dataset, how, source_digest(root, cache / "prepared"), cache)
    if (target / MANIFEST).is_file():
        return target
    try:
        with exclusive(target.with_name(target.name + ".lock")):
            if (target / MANIFEST).is_file():
                return target
            return _prepare_into(target, Source(dataset, root, how), Shown(progress, bar_for, say))
    except OSError as error:
        raise read_or_write_error(error, root, target, f"preparing {dataset.name}") from error


def prepared_already(
    dataset: Dataset, root: Path, cache: Path, frame_stride: int, up: UpChoice = "auto"
) -> Path | None:
    """The folder that `prepare` would return at once, read with or without `strict`; None if it does not exist yet."""
    if is_prepared(root):
        return root
    try:
        look_at_layout(Source(dataset, root, Reading(frame_stride, False, up)))
    except DataError:
        return None
    digest = source_digest(root.resolve(), cache / "prepared")
    for strict in (False, True):
        target = _target(dataset, Reading(frame_stride, strict, up), digest, cache)
        if (target / MANIFEST).is_file():
            return target
    return None


def _target(dataset: Dataset, how: Reading, source: str, cache: Path) -> Path:
    return cache / "prepared" / f"{dataset.name}-{_fingerprint(dataset, how, source)}"


class Source(NamedTuple):
    """A dataset, its root folder, and the reading options."""

    dataset: Dataset
    root: Path
    how: Reading


class Shown(NamedTuple):
    """How to show progress: a bar over scenes, bars by title, and lines of text."""

    progress: Progress
    bar_for: BarFor
    say: Say


def look_at_layout(source: Source) -> None:
    """Raise DataError early for a folder without the dataset's layout. The wrong folder may be a whole disk, and the next step
    looks at every file."""
    with reading(source.root):
        if any(next(source.root.glob(place), None) for place in READERS[source.dataset.layout].patterns):
            return
    find_sources(source)


def find_sources(source: Source) -> dict[str, Any]:
    """Map scene names to their sources. Raises DataError if there are none, if a folder cannot be read, or if a name is not
    UTF-8, which manifests require."""
    with reading(source.root):
        sources = READERS[source.dataset.layout].find(source.dataset, source.root)
    for name in sources:
        if readable(name) != name:
            raise DataError(f"{source.root}: the name of the scene {readable(name)} is not UTF-8; rename its folder")
    return sources


def _prepare_into(target: Path, source: Source, shown: Shown) -> Path:
    dataset, root = source.dataset, source.root
    sources = find_sources(source)
    lost = companions.lost_files(sources)
    if source.how.strict and (findings := [p for p in lost if isinstance(p, Finding)]):
        raise as_error(findings[0])
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if notice := notice_of_missing_links(partial.parent, "hard"):
        shown.say(notice)
    todo = {n: s for n, s in sources.items() if not (partial / "scenes" / n / "scene.json").is_file()}
    if len(sources) >= _PARALLEL_FROM:
        _announce(source, partial, len(todo), len(sources), shown.say)
    _, failed = each_scene(source, todo, partial, shown.progress)
    finish_pairs((partial / "scenes").glob("*"), worker_count(), shown.bar_for)
    if len(failed) == len(sources):
        if len(failed) == 1:
            raise DataError(next(iter(failed.values())))
        raise DataError(why_none("scenes", [line.removeprefix(f"{name}: ") for name, line in failed.items()]))
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    scenes, files = [], {}
    problems: list[Problem] = [f"scene {n} is left out: {message}" for n, message in sorted(failed.items())]
    problems += lost
    for name in sorted(set(sources) - set(failed)):
        done = partial / "scenes" / name
        info = json.loads((done / "scene.json").read_text())
        problems += [p if isinstance(p, str) else Finding(*p) for p in info.pop("problems")]
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
        # No local path: the manifest, and so its hash, must not depend on where the data are stored.
        problems=tuple(readable(p.replace(f"{root}{os.sep}", "")) for p in value_checks.as_lines(problems)),
        left_out=tuple(left_out_entry(name, sources[name]) for name in sorted(failed)),
    )
    (final / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    os.replace(final, target)
    shutil.rmtree(partial, ignore_errors=True)
    return target


Job = Callable[["Source", str, Any, Path], Any]
"""The work on one scene in a process of its own: source, scene name, scene source, folder to write to."""


def each_scene(
    source: Source, todo: dict[str, Any], folder: Path, progress: Progress, job: Job | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a job (`write_scene`) for each scene: results by name, and the message of each unreadable scene, which is raised with
    `strict`."""
    job = job or write_scene
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}

    def done(name: str, result: Callable[[], Any]) -> None:
        try:
            results[name] = result()
        except DataError as error:
            if source.how.strict:
                raise
            failed[name] = str(error)

    workers = min(worker_count(), len(todo))
    if len(todo) < _PARALLEL_FROM or workers < 2:
        for name in progress(sorted(todo)):
            done(name, lambda name=name: job(source, name, todo[name], folder))  # type: ignore[misc]
        return results, failed
    with process_pool(workers) as pool:
        jobs: dict[Future[Any], str] = {pool.submit(job, source, n, todo[n], folder): n for n in sorted(todo)}
        try:
            # The bar needs a length, so it iterates over the names; each step waits for one more finished scene.
            ended = as_completed(jobs)
            for _ in progress(sorted(todo)):
                future = next(ended)
                done(jobs[future], future.result)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results, failed


def worker_count() -> int:
    """Number of worker processes: one for each CPU that this process may use."""
    return min(usable_cpus(), 16)


def write_scene(source: Source, name: str, scene: Any, partial: Path) -> None:
    """Write one scene and the hashes of its files, then rename it into `partial/scenes`."""
    with whole_folder(partial / "scenes" / name, partial / "unfinished") as unfinished:
        _write_whole(source, scene, unfinished, partial)


def _write_whole(source: Source, scene: Any, unfinished: Path, partial: Path) -> None:
    dataset, root, how = source
    try:
        info = READERS[dataset.layout].write(dataset, scene, unfinished, how)
    except OSError as error:
        raise read_or_write_error(error, root, partial, f"preparing {dataset.name}") from error
    if how.strict and info["problems"]:
        raise as_error(info["problems"][0])
    info |= classes_held(unfinished / LABELLED, dataset)
    files = [
        (view, path.removeprefix(f"{view}/"), entry.model_dump())
        for path, entry in hash_files(unfinished).items()
        for view in (path.partition("/")[0],)
    ]
    (unfinished / "scene.json").write_text(json.dumps({**info, "files": files}))


def _announce(source: Source, partial: Path, todo: int, scenes: int, say: Say) -> None:
    """Print the disk space that `todo` of the scenes may take, and refuse if the disk has less."""
    dataset, root, how = source
    share = READERS[dataset.layout].share
    if "poses" in LAYOUTS[dataset.layout].provides:  # only every n-th frame of a recording is kept
        share = 0.15 + share / how.frame_stride
    need = share * sum(file.size for file in source_files(root, partial.parent)) * todo / max(1, scenes)
    free = shutil.disk_usage(partial).free
    if need > ANNOUNCED_BYTES:
        gigabytes = f"at most about {need / 1e9:.1f} GB; {free / 1e9:.1f} GB free"
        say(f"{dataset.name}: {todo} of {scenes} scenes to prepare, {gigabytes}")
    if need > free:
        raise EnvironmentCannot(
            f"preparing {dataset.name} may take {need / 1e9:.1f} GB and {partial.parent} has {free / 1e9:.1f} GB free; "
            "set BENCH_CACHE to a folder with more"
        )


def _fingerprint(dataset: Dataset, how: Reading, source: str) -> str:
    """The name of the prepared folder: a hash of the source's appearance (`source_digest`) and the reading options."""
    digest = hashlib.sha256(f"{dataset.model_dump_json()} {how} {source}".encode())
    of_frames = (frame_writer, gravity, overlaps, recording_checks, recording_pairs, recordings, sampled_frames)
    scenes = (layout, companions, holdings, images, pairs, parts, splits, user_files, value_checks, writers, voxelize)
    for module in (*scenes, arrays, *of_frames, *READERS[dataset.layout].modules):
        digest.update(Path(module.__file__ or "").read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]
