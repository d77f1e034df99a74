"""Divide scenes into training, held-out selection and test scenes, with nested label ratios.

The rule (version 1). The dataset names its test scenes. The other scenes are sorted by sha256("bench-split-1:" + scene name).
With five scenes or more, the first tenth (rounded, at least one) is held out of every ratio for checkpoint selection. With
fewer, no scene is held out, because whole classes would often be lost. Repeated scans of one ScanNet room (sceneXXXX_00, _01,
...) are held out together. A ratio of p per cent takes the first max(1, ceil(p/100 * n)) of the remaining n scenes, so 5 % is
contained in 10 %.

Scans of a drive are selected at a regular stride instead, since neighbours are nearly identical. The last tenth of every sequence
is held out as one block. The others are put in bit-reversed order: every prefix of it is evenly spread, and prefixes are nested.

For datasets whose scenes are known in advance the result is stored in `benchmarks/configs/splits/NAME.v1.tsv`: one line per scene
with its part and name, training scenes in ratio order. Partial data keep the order of the file: with fewer than five training
scenes present none is held out, and if all scenes to hold out are missing, the first tenth is held out instead. Data with a scene
that the file does not list (rooms of another origin in the same layout) follow the rule.

An official list of training scenes is used unchanged, even where the rule would hold some of them out. The selection scenes are
then the held-out scenes without any scan of a room that the list contains (`excluded`); scans of a drive have no room, so only
the listed scans are removed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from pretrain_bench.benchmarks.datasets.places import room_of
from pretrain_bench.benchmarks.specs.base import FolderName, Selection, Spec
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

SPLIT_VERSION = 1
HOLD_OUT_FROM = 5
FOLDER = Path(__file__).parent.parent / "configs" / "splits"


class Split(Spec):
    """Scene names, and the hash of all of them."""

    version: int
    train: tuple[FolderName, ...]
    selection: tuple[FolderName, ...]
    test: tuple[FolderName, ...]
    sha256: str
    excluded: tuple[FolderName, ...] = Field(
        (),
        exclude_if=lambda scenes: not scenes,
        description="scenes held out for selection that are not used: an official list trains on them or on their room",
    )

    @property
    def text(self) -> str:
        """The counts as text: `240 training scenes, 89 of 121 held-out scenes select, 312 test scenes`."""
        held_out = len(self.selection) + len(self.excluded)
        of = f" of {held_out:,} held-out" if self.excluded else ""
        return f"{len(self.train):,} training scenes, {len(self.selection):,}{of} scenes select, {len(self.test):,} test scenes"


class Division(NamedTuple):
    """All scenes by part: training scenes in ratio order, the others by name."""

    train: tuple[str, ...]
    selection: tuple[str, ...]
    test: tuple[str, ...]


def split_scenes(
    scenes: Iterable[str],
    dataset: Dataset,
    ratio: LabelRatio,
    tested: Iterable[str] = (),
    selection: Selection = "held_out",
    listed: Collection[str] | None = None,
) -> Split:
    """Divide the scenes of a prepared dataset for fine-tuning; `tested` are those that the layout marks as test scenes.

    With `selection` "none" all training scenes train, in the order of the same rule. The training scenes of an official list are
    used unchanged; `listed` holds them if the list does not ship. Raises DataError if a required part would be empty, or if a
    listed scene is not a training scene.
    """
    scenes = sorted(usable_scenes(scenes, dataset))
    division = _from_file(scenes, dataset) if selection == "held_out" else None
    if division is None:
        test = scenes_for_testing(scenes, dataset, tested)
        division = divide(scenes, test, dataset.ratio_order, hold_out=selection == "held_out")
    if not division.test:
        raise DataError(
            f"no test scene: none of the {len(scenes)} scenes of {dataset.name!r} is one ({_rule(dataset)})"
        )
    if not division.train:
        raise DataError(f"no training scene among the {len(scenes)} scenes of {dataset.name!r} ({_rule(dataset)})")
    train = division.train[: max(1, math.ceil(ratio.percent / 100 * len(division.train) - 1e-9))]
    excluded: list[str] = []
    if listed is None:
        listed = _official_scenes(scenes, dataset, ratio, tested)
    if listed is not None:
        train = tuple(listed)
        if absent := sorted(set(train) - {*division.train, *division.selection}):
            raise DataError(
                f"{len(absent)} of the {len(train)} scenes of the official list {ratio} are not among the training scenes of "
                f"{dataset.name!r}: {', '.join(absent[:3])}{', ...' * (len(absent) > 3)}; the list is used whole or not at all"
            )
        rooms = {room_of(s) for s in train}
        excluded = [s for s in division.selection if room_of(s) in rooms]
    parts = {
        "version": SPLIT_VERSION,
        "train": sorted(train),
        "selection": sorted(set(division.selection) - set(excluded)),
        "test": sorted(division.test),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Split.model_validate({**parts, "sha256": digest, "excluded": sorted(excluded)})


def _official_scenes(
    scenes: Iterable[str], dataset: Dataset, ratio: LabelRatio, tested: Iterable[str]
) -> Collection[str] | None:
    """The training scenes of a shipped official list or of a rule; None for any other label ratio."""
    official = ratio.listed
    if official is None or official.what not in ("scenes", "stride"):
        return None
    if official.what == "stride":
        return every_nth(scenes, dataset, official.number, tested)
    return read_scene_list(official.ships) if official.ships else None


def every_nth(scenes: Iterable[str], dataset: Dataset, stride: int, tested: Iterable[str] = ()) -> tuple[str, ...]:
    """Every `stride`-th training scene, sorted by name, starting with the first."""
    usable = usable_scenes(scenes, dataset)
    test = scenes_for_testing(usable, dataset, tested)
    return tuple(sorted(s for s in usable if s not in test)[::stride])


def _from_file(scenes: list[str], dataset: Dataset) -> Division | None:
    """The present scenes of the dataset's split file; None without a file, or if the file does not list a scene."""
    if dataset.split_file is None:
        return None
    whole, there = read_division(dataset.split_file), set(scenes)
    if not there <= {s for part in whole for s in part}:
        return None
    train, selection, test = (tuple(s for s in part if s in there) for part in whole)
    if len(train) + len(selection) < HOLD_OUT_FROM:
        train, selection = train + selection, ()
    elif not selection or not train:
        order = selection + train
        held = _held_out(len(order))
        selection, train = order[:held], order[held:]
    return Division(train, selection, test)


def usable_scenes(scenes: Iterable[str], dataset: Dataset) -> list[str]:
    """The scenes that train or test; others, such as SemanticKITTI's sequences without labels, do neither."""
    allowed = dataset.train_scene_prefixes + dataset.test_scene_prefixes
    usable = [s for s in scenes if not dataset.train_scene_prefixes or s.startswith(allowed)]
    if not dataset.train_scenes:
        return usable
    return [s for s in usable if is_named(s, dataset.train_scenes + dataset.test_scenes)]


def is_named(scene: str, names: tuple[str, ...]) -> bool:
    """Whether a list in a dataset's file names a scene, directly or by its folder."""
    return any(scene == name or scene.startswith(f"{name}__") for name in names)


def listed_scenes(dataset: Dataset) -> frozenset[str]:
    """The scenes of the dataset's official training and test lists; empty unless it has both."""
    if not (dataset.train_scenes_file and dataset.test_scenes_file):
        return frozenset()
    return read_scene_list(dataset.train_scenes_file) | read_scene_list(dataset.test_scenes_file)


def scenes_for_testing(scenes: Iterable[str], dataset: Dataset, tested: Iterable[str] = ()) -> frozenset[str]:
    """The scenes reserved for testing: by prefix, by official list, or as marked by the layout."""
    listed = read_scene_list(dataset.test_scenes_file) if dataset.test_scenes_file else frozenset(tested)
    prefixes, named = dataset.test_scene_prefixes, dataset.test_scenes
    return frozenset(s for s in scenes if s in listed or (prefixes and s.startswith(prefixes)) or is_named(s, named))


def divide(scenes: Iterable[str], test: frozenset[str], order: str = "hashed", hold_out: bool = True) -> Division:
    """Apply the rule above; `order` is `hashed` or `regular`. Without `hold_out` every non-test scene trains."""
    others = sorted(s for s in scenes if s not in test)
    held = _held_out(len(others)) if hold_out else 0
    if order == "regular":
        selection, train = _hold_out_ends(others, held)
        bits = max(1, (len(train) - 1).bit_length())
        train = [train[i] for i in sorted(range(len(train)), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))]
    else:
        by_room = {room: list(members) for room, members in groupby(others, room_of)}
        selection = []
        for room in sorted(by_room, key=_rank):
            if len(selection) < held:
                selection += by_room[room]
        train = sorted(set(others) - set(selection), key=_rank)
    return Division(tuple(train), tuple(sorted(selection)), tuple(sorted(test)))


def _held_out(scenes: int) -> int:
    """The number of training scenes to hold out: a tenth, at least one, but none if there are few."""
    return max(1, round(0.1 * scenes)) if scenes >= HOLD_OUT_FROM else 0


def _hold_out_ends(others: list[str], held: int) -> tuple[list[str], list[str]]:
    selection: list[str] = []
    for _, members in groupby(others, lambda s: s.partition("__")[0]):
        sequence = list(members)
        count = round(0.1 * len(sequence)) if held else 0
        selection += sequence[len(sequence) - count :]
    if held and not selection:
        selection = others[-held:]
    kept = set(selection)
    return selection, [s for s in others if s not in kept]


def _rank(scene: str) -> str:
    return hashlib.sha256(f"bench-split-{SPLIT_VERSION}:{scene}".encode()).hexdigest()


def _rule(dataset: Dataset) -> str:
    if dataset.split_file:
        return f"the split is benchmarks/configs/splits/{dataset.split_file}"
    if dataset.test_scenes:
        return f"`test_scenes` of its file: {', '.join(dataset.test_scenes[:3])}{', ...' if len(dataset.test_scenes) > 3 else ''}"
    return (
        f"test scenes start with {' or '.join(dataset.test_scene_prefixes)}"
        if dataset.test_scene_prefixes
        else "the layout marks test scenes"
    )


def division_text(division: Division) -> str:
    """Format a division as the content of a split file."""
    rows = [(part, scene) for part, scenes in zip(division._fields, division, strict=True) for scene in scenes]
    return f"# split rule version {SPLIT_VERSION}\n" + "".join(f"{part}\t{scene}\n" for part, scene in rows)


@cache
def read_division(name: str) -> Division:
    """Read a split file of `benchmarks/configs/splits/`."""
    rows = [line.split("\t") for line in (FOLDER / name).read_text().splitlines() if not line.startswith("#")]
    return Division(*(tuple(scene for part, scene in rows if part == wanted) for wanted in Division._fields))


@cache
def read_scene_list(name: str) -> frozenset[str]:
    """Read the scene names of an official list in `benchmarks/configs/splits/`, one per line."""
    return frozenset((FOLDER / name).read_text(encoding="utf-8").split())
