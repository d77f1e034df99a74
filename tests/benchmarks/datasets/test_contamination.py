"""Contamination: which scenes of a fine-tuning a pre-training saw, tested place by place."""

from __future__ import annotations

import pytest

from pretrain_bench.benchmarks.datasets.contamination import Contamination, SeenScenes, contamination, unmatched
from pretrain_bench.benchmarks.datasets.places import place_of, scan_id
from pretrain_bench.benchmarks.datasets.published_pretrainings import PUBLISHED
from pretrain_bench.benchmarks.datasets.splits import Split, read_division, read_scene_list
from pretrain_bench.benchmarks.support.errors import WrongUse

VAL = ("scene0011_00", "scene0011_01", "scene0015_00")
HELD_OUT = "scene0000_00"


def split_of(*test: str, train: tuple[str, ...] = ("scene0001_00", "scene0002_00")) -> Split:
    return Split(version=1, train=train, selection=(HELD_OUT,), test=test, sha256="0" * 64)


def seen(*scenes: str, dataset: str = "scannet", labels: bool = False, synthetic: bool = False) -> SeenScenes:
    return SeenScenes(dataset, synthetic, scenes, labels)


def judged(*stages: SeenScenes, test: tuple[str, ...] = VAL, stated: tuple[str, ...] | None = ()) -> Contamination:
    return contamination(stages, stated, split_of(*test), "scannet", False)


@pytest.mark.parametrize(
    ("dataset", "synthetic", "scene", "scan", "place"),
    [
        ("scannet", False, "scene0011_01", "scannet/scene0011_01", "scannet/scene0011"),
        ("my-export", False, "scene0011_01", "scannet/scene0011_01", "scannet/scene0011"),
        ("synth-scannet", True, "scene0011_01", "synth-scannet/scene0011_01", "synth-scannet/scene0011"),
        ("s3dis", False, "Area_5a__office_1", "s3dis/Area_5/office_1", "s3dis/Area_5/office_1"),
        ("synth-s3dis", True, "Area_5__office_1", "synth-s3dis/Area_5__office_1", "synth-s3dis/Area_5__office_1"),
        ("semantickitti", False, "08__000123", "kitti/08/000123", "kitti/08"),
        ("synth-kitti", True, "08__000123", "synth-kitti/08__000123", "synth-kitti/08"),
        ("sunrgbd", False, "000123", "sunrgbd/000123", "sunrgbd/000123"),
        ("rgbd-folder", False, "redkitchen-seq-01", "rgbd-folder/redkitchen-seq-01", "rgbd-folder/redkitchen"),
    ],
)
def test_scans_and_their_places(dataset: str, synthetic: bool, scene: str, scan: str, place: str) -> None:
    assert scan_id(dataset, synthetic, scene) == scan and place_of(scan) == place


def test_training_scenes_are_no_contamination() -> None:
    found = judged(seen("scene0001_00", "scene0002_01"))
    assert (found.flag, found.mark) == ("none", "")
    assert (found.train_places_seen, found.train, found.train_labels_seen) == (2, 2, 0)
    assert found.text.startswith("test scenes seen in pre-training: 0 of 3") and found.places_sha256


def test_a_tested_scan_is_distinguished_from_another_scan_of_its_room() -> None:
    other = judged(seen("scene0011_02"))
    assert (other.flag, other.test_seen, other.test_places_seen) == ("places", 0, 2)
    assert other.mark == "pre-training saw rooms of 2 of 3 test scenes"
    itself = judged(seen("scene0011_00"))
    assert (itself.flag, itself.test_seen, itself.test_places_seen) == ("scenes", 1, 2)
    assert itself.mark == "pre-training saw 1 of 3 test scenes"
    assert itself.examples == ("scene0011_00", "scene0011_01") and "scene0011_00, scene0011_01" in itself.text


def test_labels_of_a_tested_room_are_the_worst_flag() -> None:
    found = judged(seen("scene0011_02", labels=True), seen("scene0015_00"))
    assert (found.flag, found.test_labels_seen) == ("labels", 2)
    assert found.mark == "pre-training saw labels of 2 of 3 test scenes"
    supervised = judged(seen("scene0001_00", labels=True))
    assert (supervised.flag, supervised.train_labels_seen) == ("none", 1)
    assert supervised.mark == "pre-training saw labels of 1 of 2 training scenes"
    both = judged(seen("scene0001_00", labels=True), seen("scene0015_00"))
    assert both.mark == "pre-training saw 1 of 3 test scenes, and labels of 1 of 2 training scenes"
    assert "labels of training scenes: 1 of 2" in supervised.text


def test_selection_scenes_are_counted_and_do_not_mark_a_score() -> None:
    found = judged(seen("scene0000_01"))
    assert (found.flag, found.mark, found.selection_places_seen, found.selection) == ("none", "", 1, 1)
    assert "selection scenes: 1 of 1" in found.text


def test_an_export_under_another_name_is_the_same_room() -> None:
    assert judged(seen("scene0015_00", dataset="my-frames")).flag == "scenes"
    assert judged(seen("scene0015_00", dataset="synth-scannet", synthetic=True)).flag == "none"


def test_procedural_worlds_are_judged_by_room_names() -> None:
    """Pre-training on the training rooms of the tested world is in-domain, but not contaminated."""
    test, train = ("scene0100_00", "scene0101_00"), ("scene0001_00",)
    split = Split(version=1, train=train, selection=(HELD_OUT,), test=test, sha256="0" * 64)

    def flag(*scenes: str, dataset: str = "synth-scannet") -> str:
        one = seen(*scenes, dataset=dataset, synthetic=True)
        return contamination([one], (), split, "synth-scannet", True).flag

    assert flag(*train, HELD_OUT) == "none"
    assert flag(*train, *test) == "scenes"
    assert flag(*test, dataset="synth-s3dis") == "none"


def test_weights_from_elsewhere_are_unknown_unless_stated() -> None:
    unknown = judged(stated=None)
    assert (unknown.flag, unknown.places_sha256) == ("unknown", None) and "unknown" in unknown.mark
    train = judged(stated=("scannet:train",))
    assert (train.flag, train.stated) == ("none", True) and "as stated" in train.text
    assert judged(stated=("scannet:val",)).test_seen == 3
    assert judged(stated=("labels:scannet:val",)).flag == "labels"
    assert judged(stated=("scannet/scene0011_0?",)).test_seen == 2
    for other in ("scannet/scene0011_01", "scene0011_01"):  # a scan of the same room, identified by its id or name
        room = judged(stated=(other,), test=("scene0011_00",))
        assert (room.flag, room.test_seen, room.test_places_seen) == ("places", 0, 1), other
    named = judged(stated=("scene0011_00", "Area_5__office_1"))
    assert (named.flag, named.test_seen, named.test_places_seen) == ("scenes", 1, 2)
    for wrong in ("scannet", "published:missing", "scannet:everything"):
        with pytest.raises(WrongUse, match="pretrained_on"):
            judged(stated=(wrong,))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pretrainings_read_the_validation_scans(name: str) -> None:
    """All of them read ScanNet's validation scans without labels, so `scannet-sem` is marked."""
    whole = read_division("scannet.v1.tsv")
    split = Split(version=1, train=whole.train, selection=whole.selection, test=whole.test, sha256="0" * 64)
    found = contamination([], (f"published:{name}",), split, "scannet", False)
    assert (found.flag, found.test_seen, found.train_labels_seen) == ("scenes", 312, 0)
    area_5 = Split(version=1, train=("Area_1__a",), selection=(), test=("Area_5__a",), sha256="0" * 64)
    drive = Split(version=1, train=("00__000000",), selection=(), test=("08__000000",), sha256="0" * 64)
    assert contamination([], (f"published:{name}",), area_5, "s3dis", False).flag == (
        "scenes" if name in ("sonata", "concerto", "utonia") else "none"
    )
    assert contamination([], (f"published:{name}",), drive, "semantickitti", False).flag == (
        "scenes" if name == "utonia" else "none"
    )


def test_no_room_of_scannet_is_in_two_official_lists() -> None:
    """So training on the official training list contaminates neither rooms nor scans."""
    train, val = ({s[:9] for s in read_scene_list(f"scannetv2_{part}.txt")} for part in ("train", "val"))
    assert not train & val


@pytest.mark.parametrize(
    ("dataset", "scene", "stated"),
    [
        ("rooms", "Area_5__room_1", ("rooms/*", "rooms/Area_5/*", "rooms/Area_5__room_1", "s3dis/Area_5/room_1")),
        ("lab", "f5__room_1", ("lab/f5/*", "lab/f5/room_1", "lab/f5__*", "lab/f5__room_1")),
        ("semantickitti", "08__000123", ("semantickitti/08/*", "kitti/08/*", "semantickitti/08/000123")),
        ("scannet", "scene0011_00", ("scannet/scene0011_*", "scene0011_00")),
    ],
)
def test_a_scan_may_be_stated_by_the_name_of_its_dataset(dataset: str, scene: str, stated: tuple[str, ...]) -> None:
    for item in stated:
        for prefix, flag in (("", "scenes"), ("labels:", "labels")):
            assert contamination([], [f"{prefix}{item}"], split_of(scene), dataset, False).flag == flag, item
    for other in ("other/*", f"{dataset}/other/*", f"{dataset}/other"):  # no place of the tested scan
        assert contamination([], [other], split_of(scene), dataset, False).flag == "none", other


@pytest.mark.parametrize(
    ("dataset", "test", "stated"),
    [
        ("semantickitti", "08__000100", ("semantickitti/08/000123", "kitti/08/000123")),
        ("myscans", "scene0011_00", ("myscans/scene0011_01", "scannet/scene0011_01")),
        ("lab", "f5__seq-01", ("lab/f5/seq-02", "lab/f5__seq-02")),
    ],
)
def test_another_scan_of_a_tested_place_counts_in_every_spelling(
    dataset: str, test: str, stated: tuple[str, ...]
) -> None:
    for item in stated:
        found = contamination([], [item], split_of(test), dataset, False)
        assert (found.flag, found.test_seen) == ("places", 0), item
        assert not unmatched([item], [test], dataset, False)
    assert unmatched([f"{dataset}/other", f"{dataset}/other/*"], [test], dataset, False)


def test_a_procedural_drive_is_not_a_real_one() -> None:
    assert contamination([], ["synth-kitti/08__000123"], split_of("08__000123"), "semantickitti", False).flag == "none"
    assert contamination([], ["synth-kitti/08/000124"], split_of("08__000123"), "synth-kitti", True).flag == "places"
