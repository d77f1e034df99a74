"""Overlap between the scenes of a pre-training and the test, selection and training scenes of a fine-tuning (spec 5).

The unit is the place (`places.py`): another scan of a tested room counts too, under its own flag.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from pydantic import Field, NonNegativeInt

from pretrain_bench.benchmarks.datasets.places import place_of, scan_id
from pretrain_bench.benchmarks.datasets.published_pretrainings import LABELS, PUBLISHED_PREFIX, expand, scans_of
from pretrain_bench.benchmarks.datasets.splits import Split
from pretrain_bench.benchmarks.specs.base import FolderName, Sha256, Spec, is_none

Flag = Literal["none", "places", "scenes", "labels", "unknown"]
_SHOWN = 10
_OFFICIAL = ("scannet", "s3dis", "kitti", "semantickitti")
"""Datasets whose scans are recognised by their names (`places.py`)."""


class SeenScenes(NamedTuple):
    """The scenes of one dataset that a pre-training stage read, and whether it read their labels."""

    dataset: str
    synthetic: bool
    scenes: Sequence[str]
    labels: bool


class Contamination(Spec):
    """How many scenes of a fine-tuning the pre-training saw. Counts are of scans; a place is a ScanNet or S3DIS room, or a
    driven sequence."""

    flag: Flag = Field(
        description="none; places: another scan of a tested place was seen; scenes: a tested scan itself; labels: labels of a "
        "tested place; unknown: imported weights whose training scenes are not stated"
    )
    test: NonNegativeInt = Field(description="test scenes")
    test_seen: NonNegativeInt = Field(0, description="test scans that the pre-training read")
    test_places_seen: NonNegativeInt = Field(
        0, description="test scenes in a place that the pre-training read, including the above"
    )
    test_labels_seen: NonNegativeInt = Field(0, description="test scenes in a place whose labels it read")
    examples: tuple[FolderName, ...] = Field((), description="names of the first of these")
    selection: NonNegativeInt = Field(0, description="scenes that select a checkpoint")
    selection_places_seen: NonNegativeInt = Field(0, description="selection scenes in a place that it read")
    train: NonNegativeInt = Field(0, description="training scenes of the fine-tuning")
    train_places_seen: NonNegativeInt = Field(0, description="training scenes in a place that it read")
    train_labels_seen: NonNegativeInt = Field(0, description="training scenes in a place whose labels it read")
    stated: bool = Field(False, description="whether a part of the scenes is only stated by the user")
    places_sha256: Sha256 | None = Field(
        None,
        exclude_if=is_none,
        description="sha256 of the sorted list of places that the pre-training read, one per line",
    )

    @property
    def mark(self) -> str:
        """The warning that a table cell carries; empty if the pre-training saw no test scene and no label of a training
        scene."""
        of = f"of {self.test:,} test scenes"
        words = {
            "none": "",
            "places": f"pre-training saw rooms of {self.test_places_seen:,} {of}",
            "scenes": f"pre-training saw {self.test_seen:,} {of}",
            "labels": f"pre-training saw labels of {self.test_labels_seen:,} {of}",
            "unknown": "unknown whether pre-training saw test scenes",
        }[self.flag]
        if not self.train_labels_seen:
            return words
        labels = f"labels of {self.train_labels_seen:,} of {self.train:,} training scenes"
        return f"{words}, and {labels}" if words else f"pre-training saw {labels}"

    @property
    def text(self) -> str:
        """All counts in one sentence: `test scenes seen in pre-training: 0 of 20; selection scenes: 12 of 12; ...`."""
        if self.flag == "unknown":
            return "unknown: the weights are imported, and their pre-training scenes are not stated"
        text = f"test scenes seen in pre-training: {self.test_seen:,} of {self.test:,}"
        if self.test_places_seen > self.test_seen:
            text += f", {self.test_places_seen - self.test_seen:,} more in another scan or sequence of their place"
        if self.test_labels_seen:
            text += f", with labels: {self.test_labels_seen:,}"
        if self.examples:
            more = self.test_places_seen - len(self.examples[:3])
            text += f" ({', '.join(self.examples[:3])}{f' and {more:,} more' if more > 0 else ''})"
        for part, seen, total in (
            ("selection scenes", self.selection_places_seen, self.selection),
            ("training scenes", self.train_places_seen, self.train),
            ("labels of training scenes", self.train_labels_seen, self.train),
        ):
            if seen or part != "labels of training scenes":
                text += f"; {part}: {seen:,} of {total:,}"
        return text + ("; as stated by the user" if self.stated else "")


class _Seen:
    """Ids of seen scans, and patterns of scenes that are only stated. Scenes of `dataset`, with which they are compared, may be
    stated by its own name too."""

    def __init__(self, dataset: str, synthetic: bool) -> None:
        self.dataset, self.synthetic = dataset, synthetic
        self.scans: set[str] = set()
        self.patterns: dict[str, str] = {}
        """Each pattern as stated, and in the form of `_plain`."""

    def places(self) -> frozenset[str]:
        return frozenset(map(place_of, self.scans))

    def has_scan(self, name: str, scan: str) -> bool:
        """Whether a scene of the dataset was seen, by its name and id."""
        if scan in self.scans or not self.patterns:
            return scan in self.scans
        forms = {_plain(scan), _plain(f"{self.dataset}/{name}")}
        return any(fnmatchcase(form, pattern) for form in forms for pattern in self.patterns.values())

    def add_stated(self, item: str) -> None:
        scans = scans_of(item)
        if scans is not None:
            self.scans |= scans
        elif any(wildcard in item for wildcard in "*?["):
            self.patterns[item] = _plain(item)
        else:
            self.scans.add(self._id(item))

    def _id(self, item: str) -> str:
        """The id of a scan that is stated as DATASET/SCENE."""
        name, _, scene = item.partition("/")
        if name != self.dataset and name not in _OFFICIAL:
            return item
        return scan_id(name, self.synthetic and name == self.dataset, scene.replace("/", "__"))


def _plain(name: str) -> str:
    """One form of the names of a scan: `lab/f5/room_1` also for `lab/f5__room_1`, `kitti` also for `semantickitti`."""
    return re.sub(r"^semantickitti/", "kitti/", name).replace("__", "/")


def dataset_of(item: str) -> str | None:
    """The dataset that a stated item (without `labels:`) names; None for an official list or the name of a scan."""
    return item.partition("/")[0] if scans_of(item) is None else None


def unmatched(stated: Iterable[str], scenes: Iterable[str], dataset: str, synthetic: bool) -> list[str]:
    """The items that name the `dataset` and match none of its `scenes`; lists that ship and `published:` are left out."""
    ids = [(name, scan_id(dataset, synthetic, name)) for name in scenes]
    places = {place_of(scan) for _, scan in ids}
    names = {dataset, *(scan.partition("/")[0] for _, scan in ids)}
    found = []
    for item in expand(i for i in stated if not i.startswith(PUBLISHED_PREFIX)):
        plain = item.removeprefix(LABELS)
        if dataset_of(plain) is None or not names & {plain.partition("/")[0], _plain(plain).partition("/")[0]}:
            continue
        seen = _Seen(dataset, synthetic)
        seen.add_stated(plain)
        if not (places & seen.places() or any(seen.has_scan(*one) for one in ids)):
            found.append(item)
    return found


def contamination(
    seen: Iterable[SeenScenes],
    stated: Iterable[str] | None,
    split: Split,
    dataset: str,
    synthetic: bool,
) -> Contamination:
    """Compare what a pre-training saw with the `split` of `dataset` that a fine-tuning uses.

    `seen` lists what the pre-training stages read. `stated` lists the scenes of imported weights, in the syntax of
    `published_pretrainings.py`: empty without imported weights, None where nothing is stated about them.

    Raises WrongUse for a stated item in none of the known forms.
    """
    test, selection, train = (
        [(name, scan_id(dataset, synthetic, name)) for name in part]
        for part in (split.test, split.selection, split.train)
    )
    if stated is None:
        return Contamination(flag="unknown", test=len(test), selection=len(selection), train=len(train))
    read, labelled = _Seen(dataset, synthetic), _Seen(dataset, synthetic)
    for one in seen:
        scans = {scan_id(one.dataset, one.synthetic, scene) for scene in one.scenes}
        read.scans |= scans
        labelled.scans |= scans if one.labels else set()
    items = expand(stated)
    for item in items:
        read.add_stated(item.removeprefix(LABELS))
        if item.startswith(LABELS):
            labelled.add_stated(item.removeprefix(LABELS))
    places, labelled_places = read.places(), labelled.places()

    def of_read(name: str, scan: str) -> bool:
        return place_of(scan) in places or read.has_scan(name, scan)

    def of_labelled(name: str, scan: str) -> bool:
        return place_of(scan) in labelled_places or labelled.has_scan(name, scan)

    itself = sum(read.has_scan(*one) for one in test)
    test_names = sorted(name for name, scan in test if of_read(name, scan))
    test_labels = sum(of_labelled(*one) for one in test)
    flag: Flag = "labels" if test_labels else "scenes" if itself else "places" if test_names else "none"
    listed = "".join(f"{place}\n" for place in sorted({*places, *read.patterns}))
    return Contamination(
        flag=flag,
        test=len(test),
        test_seen=itself,
        test_places_seen=len(test_names),
        test_labels_seen=test_labels,
        examples=tuple(test_names[:_SHOWN]),
        selection=len(selection),
        selection_places_seen=sum(of_read(*one) for one in selection),
        train=len(train),
        train_places_seen=sum(of_read(*one) for one in train),
        train_labels_seen=sum(of_labelled(*one) for one in train),
        stated=bool(items),
        places_sha256=hashlib.sha256(listed.encode()).hexdigest(),
    )
