from __future__ import annotations

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets.splits import (
    FOLDER,
    divide,
    division_text,
    read_division,
    read_scene_list,
    scenes_for_testing,
    split_scenes,
)
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find

SCENES = [f"Area_{a}__room_{i}" for a in range(1, 7) for i in range(20)]
SMALL = find(Dataset, "synth-s3dis")
RATIOS = (1, 5, 10, 20, 30, 40, 50, 100)


def split(percent: float, scenes: list[str] = SCENES):
    return split_scenes(scenes, SMALL, LabelRatio(percent=percent))


def test_ratios_are_nested_and_never_touch_test_or_selection() -> None:
    previous: set[str] = set()
    whole = split(100)
    for percent in RATIOS:
        now = split(percent)
        assert previous <= set(now.train)
        assert (now.selection, now.test) == (whole.selection, whole.test)
        assert not set(now.train) & (set(now.selection) | set(now.test))
        previous = set(now.train)
    assert {*whole.train, *whole.selection, *whole.test} == set(SCENES)
    assert len(whole.selection) == 10
    assert len(split(5).train) == 5  # ceil(0.05 * 90)


def test_order_of_scenes_does_not_matter_and_the_hash_tells_splits_apart() -> None:
    assert split(10, SCENES[::-1]) == split(10)
    assert len({split(p).sha256 for p in RATIOS}) == len(RATIOS)


def test_tiny_sets_keep_a_training_scene_and_hold_none_out() -> None:
    tiny = split(1, ["Area_1__a", "Area_1__b", "Area_5__c"])
    assert (len(tiny.train), tiny.selection, tiny.test) == (1, (), ("Area_5__c",))


def test_a_set_without_test_or_training_scenes_is_refused() -> None:
    with pytest.raises(DataError, match="no test scene"):
        split(100, ["Area_1__a"])
    with pytest.raises(DataError, match="no training scene"):
        split(100, ["Area_5__a"])


@pytest.mark.parametrize("name", ["s3dis", "scannet"])
def test_split_files_are_what_the_rule_gives(name: str) -> None:
    dataset = find(Dataset, name)
    division = read_division(dataset.split_file or "")
    scenes = [s for part in division for s in part]
    assert divide(scenes, scenes_for_testing(scenes, dataset)) == division
    assert division_text(division) == (FOLDER / f"{name}.v1.tsv").read_text()
    assert len(scenes) == len(set(scenes)) == {"s3dis": 272, "scannet": 1513}[name]


def test_scannet_lists_and_rooms() -> None:
    division = read_division("scannet.v1.tsv")
    assert set(division.test) == read_scene_list("scannetv2_val.txt") and len(division.test) == 312
    assert {*division.train, *division.selection} == read_scene_list("scannetv2_train.txt")
    rooms = [{s[:9] for s in part} for part in division]
    assert not rooms[0] & rooms[1], "no room is scanned for training and for selection"
    assert 120 <= len(division.selection) <= 125


def test_partial_data_follow_the_file() -> None:
    scannet = find(Dataset, "scannet")
    division = read_division("scannet.v1.tsv")
    there = [*division.train[:40:2], *division.selection[:3], *division.test[:2]]
    split = split_scenes(there, scannet, LabelRatio(percent=10))
    assert split.train == tuple(sorted(division.train[:4:2])) and split.selection == tuple(
        sorted(division.selection[:3])
    )
    without = split_scenes([*division.train[:40], division.test[0]], scannet, LabelRatio())
    assert without.selection == tuple(sorted(division.train[:4])) and len(without.train) == 36
    foreign = [f"scene{9000 + i}_00" for i in range(20)] + [division.test[0]]
    assert len(split_scenes(foreign, scannet, LabelRatio()).train) == 18, "rooms of another origin follow the rule"
    few = split_scenes(
        [*division.train[:2], *division.selection[:1], division.test[0]], scannet, LabelRatio(percent=100)
    )
    assert len(few.train) == 3 and not few.selection


@pytest.mark.parametrize(("name", "training"), [("s3dis", 204), ("scannet", 1201)])
def test_without_selection_every_training_scene_trains(name: str, training: int) -> None:
    dataset = find(Dataset, name)
    scenes = [s for part in read_division(dataset.split_file or "") for s in part]
    held_out = split_scenes(scenes, dataset, LabelRatio())
    whole = split_scenes(scenes, dataset, LabelRatio(), selection="none")
    assert len(whole.train) == training and not whole.selection and whole.test == held_out.test
    assert set(whole.train) == {*held_out.train, *held_out.selection}
    few = split_scenes(scenes, dataset, LabelRatio(percent=5), selection="none")
    more = split_scenes(scenes, dataset, LabelRatio(percent=20), selection="none")
    assert len(few.train) == -(-training // 20) and set(few.train) < set(more.train) < set(whole.train)


def test_without_selection_scans_keep_their_regular_stride() -> None:
    kitti = find(Dataset, "semantickitti")
    scans = [f"{s:02d}__{i:06d}" for s in (0, 1, 8) for i in range(200)]
    whole = split_scenes(scans, kitti, LabelRatio(), selection="none")
    assert len(whole.train) == 400 and not whole.selection
    few = split_scenes(scans, kitti, LabelRatio(percent=10), selection="none").train
    gaps = np.diff([sorted(whole.train).index(s) for s in few])
    assert gaps.max() <= 3 * 400 / len(few)


def test_scans_are_taken_at_a_regular_stride() -> None:
    kitti = find(Dataset, "semantickitti")
    scans = [f"{s:02d}__{i:06d}" for s in (0, 1, 8) for i in range(200)]
    whole = split_scenes(scans, kitti, LabelRatio(percent=100))
    assert [s[:2] for s in whole.selection] == ["00"] * 20 + ["01"] * 20
    assert {int(s[4:]) for s in whole.selection} == set(range(180, 200)), "the last tenth of each drive, as one piece"
    previous: set[str] = set()
    for percent in RATIOS:
        train = split_scenes(scans, kitti, LabelRatio(percent=percent)).train
        assert previous <= set(train)
        previous = set(train)
        places = [sorted(whole.train).index(s) for s in train]
        gaps = np.diff(places)
        assert percent == 100 or gaps.max() <= 3 * 360 / len(train), "no long stretch is left out"


def test_the_layout_may_name_test_scenes() -> None:
    sunrgbd = find(Dataset, "sunrgbd")
    split = split_scenes(["000001", "000002", "000003"], sunrgbd, LabelRatio(), tested=["000002"])
    assert split.test == ("000002",) and split.train == ("000001", "000003")


@pytest.mark.parametrize(
    ("text", "shown"), [("20points", "20points"), ("1 point", "1points"), ("2boxes", "2boxes"), ("4box", "4boxes")]
)
def test_limited_annotations_are_ratios_too(text: str, shown: str) -> None:
    assert str(LabelRatio.parse(text)) == shown
    assert len(split_scenes(SCENES, SMALL, LabelRatio.parse(text)).train) == 90


def test_sequences_without_labels_neither_train_nor_test() -> None:
    kitti = find(Dataset, "semantickitti")
    scans = [f"{s:02d}__{i:06d}" for s in (0, 8, 11, 21) for i in range(10)]
    split = split_scenes(scans, kitti, LabelRatio())
    assert {s[:2] for s in (*split.train, *split.selection)} == {"00"} and {s[:2] for s in split.test} == {"08"}
