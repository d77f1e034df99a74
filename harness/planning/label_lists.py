"""Official label lists: files that a user names, and the split that a list gives on a prepared dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.benchmarks.datasets.splits import FOLDER, Split, every_nth, split_scenes
from pretrain_bench.benchmarks.specs.base import Selection
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL, OfficialLabels, official_labels
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.benchmarks.support.user_files import read_text
from pretrain_bench.harness.planning.prepared_data import PreparedDataset

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.datasets.preview import TrainingLabels

FLAG = "--label-split"


class LabelFile(NamedTuple):
    """A file distributed by a benchmark, as named by a user."""

    path: Path
    sha256: str


class OfficialSplit(NamedTuple):
    """An official choice of labels of one dataset: the ratio with the hash of its file, the split, and the file with the labelled
    points or boxes of each scene, if any."""

    ratio: LabelRatio
    split: Split
    file: Path | None


def parse_label_files(options: Iterable[str], ratios: Iterable[str]) -> dict[str, LabelFile]:
    """Parse NAME=FILE options, such as `la20=/data/points20`: list name to file for these label ratios. Files of other ratios
    are not read, since `bench.yaml` may name files that a command does not need.

    Raises WrongUse for an unknown name or form, for a list that ships, and for an unreadable file of a ratio.
    """
    files: dict[str, LabelFile] = {}
    used = set(map(official_labels, ratios))
    needed = [one.name for one in OFFICIAL.values() if one.needs_file]
    for option in options:
        name, equals, path = option.partition("=")
        listed = official_labels(name)
        if not equals or not path or listed is None or not listed.needs_file:
            ships = f"{listed.name} needs no file; " if listed is not None and not listed.needs_file else ""
            raise WrongUse(f"{FLAG} {option!r}: {ships}expected NAME=FILE, NAME one of {', '.join(needed)}")
        if listed not in used:
            continue
        file = Path(path).expanduser()
        try:
            files[listed.name] = LabelFile(file, size_and_sha256(file)[1])
        except OSError as error:
            raise WrongUse(
                f"{FLAG} {listed.name}={file}: cannot be read: {error.strerror}; it is {listed.source}"
            ) from None
    return files


def check_label_files(ratios: Iterable[str], files: Mapping[str, LabelFile]) -> list[str]:
    """Raises WrongUse for a label ratio whose file is not named. Returns a notice for each file whose content differs from the
    known distributed one."""
    for listed in filter(None, map(official_labels, ratios)):
        if listed.what != "stride":
            _file_of(listed, files)
    return [
        f"{FLAG} {name}={file.path}: not the known distributed file (sha256 {file.sha256[:12]}..., expected "
        f"{OFFICIAL[name].sha256[:12]}...); the record has its hash"  # type: ignore[index]
        for name, file in files.items()
        if OFFICIAL[name].sha256 not in (None, file.sha256)
    ]


def official_split(
    ratio: LabelRatio,
    kind: str,
    target: PreparedDataset,
    scenes: Collection[str],
    selection: Selection,
    files: Mapping[str, LabelFile],
) -> OfficialSplit:
    """The split that the official choice of `ratio` gives on `scenes`, those of `target` that tasks of this `kind` can use.

    Raises DataError if the choice is for other tasks or data, or does not fit them: a listed scan is missing, a scan has no
    rows, or its cloud lacks a row. Raises WrongUse for an unknown choice, or one without its file.
    """
    listed = ratio.listed
    assert listed is not None
    _check_purpose(listed, kind, target)
    if listed.what == "stride":
        _check_whole(listed, target, len(every_nth(scenes, target.dataset, 1, target.tested)))
        return OfficialSplit(ratio, split_scenes(scenes, target.dataset, ratio, target.tested, selection), None)
    path, sha256 = _file_of(listed, files)
    ratio = ratio.model_copy(update={"sha256": sha256})
    if target.manifest.synthetic and sha256 == listed.sha256:
        raise DataError(
            f"{listed.name} lists real scans, but {target.dataset.name!r} is SYNTHETIC; give --data scannet=DIR"
        )
    if listed.what == "scenes":
        train = None if listed.ships else _read_scene_names(path)
        return OfficialSplit(ratio, split_scenes(scenes, target.dataset, ratio, target.tested, selection, train), None)
    split = split_scenes(scenes, target.dataset, ratio, target.tested, selection)
    _check_rows(listed, path, split.train, target)
    return OfficialSplit(ratio, split, path)


def training_labels(prepared: PreparedDataset, label_ratio: str, label_files: Iterable[str]) -> TrainingLabels:
    """The training scenes and labels that a label ratio selects on a prepared dataset; `label_files` as in `parse_label_files`.

    Raises WrongUse, and DataError if the ratio does not fit the data.
    """
    from pretrain_bench.benchmarks.datasets.holdings import scenes_for_task
    from pretrain_bench.benchmarks.datasets.preview import TrainingLabels
    from pretrain_bench.benchmarks.input.annotations import labelled_rows

    ratio, files = LabelRatio.parse(label_ratio), parse_label_files(label_files, [label_ratio])
    kinds = ratio.listed.kinds if ratio.listed else ("semantic",) if ratio.boxes is None else ("detection",)
    scenes = scenes_for_task(prepared.manifest, prepared.scenes, kinds[0])
    if ratio.official is None:
        chosen = OfficialSplit(ratio, split_scenes(scenes, prepared.dataset, ratio, prepared.tested), None)
    else:
        chosen = official_split(ratio, kinds[0], prepared, scenes, "held_out", files)
    return TrainingLabels(
        chosen.split.train,
        f"training scenes, {ratio.words}",
        kinds == ("detection",),
        lambda scene, rows: labelled_rows(ratio, scene, rows, chosen.file or Path()),
    )


def _file_of(listed: OfficialLabels, files: Mapping[str, LabelFile]) -> LabelFile:
    """The shipped list, or the user's file. Raises WrongUse if that is not named."""
    if listed.ships is not None:
        assert listed.sha256 is not None
        return LabelFile(FOLDER / listed.ships, listed.sha256)
    if listed.name not in files:
        raise WrongUse(
            f"label ratio {listed.name}: name its file with {FLAG} {listed.name}=FILE; it is {listed.source}"
        )
    return files[listed.name]


def _check_purpose(listed: OfficialLabels, kind: str, target: PreparedDataset) -> None:
    if kind not in listed.kinds:
        raise DataError(
            f"{listed.name} ({listed.words}) is for {' and '.join(listed.kinds)} tasks, not for a {kind} task"
        )
    dataset = target.dataset
    fits = dataset.ratio_order == "regular" if listed.what == "stride" else dataset.layout == "scannet"
    if not fits:
        needed = "scans of drives" if listed.what == "stride" else "ScanNet"
        raise DataError(f"{listed.name} ({listed.words}) is for {needed}, not for {dataset.name!r}")


def _check_whole(listed: OfficialLabels, target: PreparedDataset, scans: int) -> None:
    """Raises DataError for a subset of the real training scans, of which every n-th scan would be a different one."""
    if not target.manifest.synthetic and scans != listed.defined_on:
        raise DataError(
            f"{listed.name} ({listed.words}) is defined on {listed.defined_on:,} training scans; {target.dataset.name!r} has "
            f"{scans:,} here, so that every {listed.number}th would be a different scan"
        )


def _read_scene_names(path: Path) -> tuple[str, ...]:
    names = tuple(read_text(path).split())
    if len(set(names)) < len(names) or not names:
        raise DataError(
            f"{path}: expected names of scans, one per line, each once; it has {len(names)}, {len(set(names))} different"
        )
    return names


def _check_rows(listed: OfficialLabels, path: Path, scenes: Iterable[str], target: PreparedDataset) -> None:
    """Raises DataError unless every training scene has rows, at most as many as the list's name states, all within its
    cloud or boxes."""
    from pretrain_bench.benchmarks.input.annotations import read_label_rows

    rows = read_label_rows(path)
    entries = {s.name: s for s in target.manifest.scenes}
    most = 0
    for scene in scenes:
        if scene not in rows:
            raise DataError(
                f"{path}: no rows for training scene {scene}; {listed.name} has labels of every training scan"
            )
        available = entries[scene].points if listed.what == "points" else entries[scene].boxes
        last = int(rows[scene].max(initial=-1))
        if last >= available:
            raise DataError(
                f"{path}: row {last:,} of scene {scene}, which has {available:,} {listed.what} here; the list is of the whole "
                "official mesh, and a decimated one cannot use it"
            )
        most = max(most, len(rows[scene]))
    if most != listed.number:
        raise DataError(
            f"{path}: {most} {listed.what} in a scan, but {listed.name} has {listed.number}; check that it is the right file"
        )
