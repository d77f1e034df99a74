from __future__ import annotations

import pytest

from benchmarks.errors import DataError
from benchmarks.ratios import split_scenes
from benchmarks.specs import Dataset, LabelRatio
from harness.catalog import find

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
