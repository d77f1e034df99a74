"""Official label lists and rules: the included lists, their training scenes, and unchanged hashes of this project's own ratios."""

from __future__ import annotations

import hashlib

import pytest

from pretrain_bench.benchmarks.datasets.splits import FOLDER, every_nth, read_division, read_scene_list, split_scenes
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.harness.planning.catalog import find

SCANNET = find(Dataset, "scannet")
ALL_SCANS = [s for part in read_division("scannet.v1.tsv") for s in part]
FACTS = {1: (12, 12, 2), 5: (60, 58, 8), 10: (120, 108, 12), 20: (240, 201, 32)}
"""Counts of each list: scans, rooms, and scans that the project's rule would hold out (spec 4.1)."""
SELECTING = {1: 112, 5: 98, 10: 85, 20: 54}
"""Of the 121 held-out scans, the number used for selection with each list (docs/data.md)."""

SPLIT_AT_20 = "381936acf64527c71c8f7594dba2be289205a3af427baf5d5233e5e0f5f45581"
"""Hash of ScanNet's 20 % by the project's rule, from before official lists existed."""


@pytest.mark.parametrize("percent", FACTS)
def test_the_shipped_lists_are_the_distributed_ones(percent: int) -> None:
    listed = OFFICIAL[f"scannet-lr{percent}"]
    assert listed.ships is not None
    assert hashlib.sha256((FOLDER / listed.ships).read_bytes()).hexdigest() == listed.sha256
    scans = read_scene_list(listed.ships)
    assert scans <= read_scene_list("scannetv2_train.txt")
    held_out = read_division("scannet.v1.tsv").selection
    assert (len(scans), len({s[:9] for s in scans}), len(scans & set(held_out))) == FACTS[percent]


@pytest.mark.parametrize("percent", FACTS)
def test_a_list_trains_unchanged_and_no_selection_scene_is_of_its_rooms(percent: int) -> None:
    ratio = LabelRatio.parse(f"lr{percent}")
    scans = read_scene_list(f"scannet_lr_{percent}.txt")
    whole = split_scenes(ALL_SCANS, SCANNET, LabelRatio())
    split = split_scenes(ALL_SCANS, SCANNET, ratio, listed=scans)
    assert set(split.train) == scans and split.test == whole.test
    rooms = {s[:9] for s in scans}
    assert {*split.selection, *split.excluded} == set(whole.selection)
    assert not rooms & {s[:9] for s in split.selection} and {s[:9] for s in split.excluded} <= rooms
    assert f"{SELECTING[percent]} of 121 held-out scenes select" in split.text
    ours = split_scenes(ALL_SCANS, SCANNET, LabelRatio(percent=float(percent)))
    assert split.sha256 != ours.sha256 and set(split.train) != set(ours.train)
    none_held_out = split_scenes(ALL_SCANS, SCANNET, ratio, selection="none", listed=scans)
    assert set(none_held_out.train) == scans and not none_held_out.selection and not none_held_out.excluded


def test_a_list_is_used_whole_or_not_at_all() -> None:
    scans = read_scene_list("scannet_lr_1.txt")
    there = [s for s in ALL_SCANS if s not in sorted(scans)[:2]]
    with pytest.raises(
        DataError, match="2 of the 12 scenes of the official list scannet-lr1 .* used whole or not at all"
    ):
        split_scenes(there, SCANNET, LabelRatio.parse("lr1"), listed=scans)


def test_every_hundredth_scan_of_semantickitti() -> None:
    """The counts of the real sequences: 192 of 19,130."""
    counts = {0: 4541, 1: 1101, 2: 4661, 3: 801, 4: 271, 5: 2761, 6: 1101, 7: 1101, 8: 4071, 9: 1591, 10: 1201}
    scans = [f"{s:02d}__{i:06d}" for s, count in counts.items() for i in range(count)]
    kitti = find(Dataset, "semantickitti")
    chosen = every_nth(scans, kitti, 100)
    assert len(every_nth(scans, kitti, 1)) == OFFICIAL["kitti-every100"].defined_on == 19_130
    assert len(chosen) == 192 and chosen[:2] == ("00__000000", "00__000100")
    assert chosen[46] == "01__000059", "the stride runs on over the sequences"
    split = split_scenes(scans, kitti, LabelRatio.parse("kitti-every100"), listed=chosen)
    assert split.train == chosen and set(split.excluded) <= set(chosen) and len(split.selection) > 1800


@pytest.mark.parametrize(
    ("text", "name", "points", "boxes"),
    [
        ("scannet-lr20", "scannet-lr20", None, None),
        ("lr1", "scannet-lr1", None, None),
        ("la50", "scannet-la50", 50, None),
        ("scannet-lb4", "scannet-lb4", None, 4),
        ("det-lr40", "scannet-det-lr40", None, None),
        ("kitti-every100", "kitti-every100", None, None),
    ],
)
def test_names_of_official_choices(text: str, name: str, points: int | None, boxes: int | None) -> None:
    ratio = LabelRatio.parse(text)
    assert (str(ratio), ratio.points, ratio.boxes, ratio.is_share) == (name, points, boxes, False)
    assert name in ratio.words and ratio.words != f"{name} of the labels"
    assert LabelRatio.model_validate_json(ratio.model_dump_json()) == ratio


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(WrongUse, match="scannet-lr20.*scannet-la200.*kitti-every100"):
        LabelRatio.parse("lr30")
    with pytest.raises(WrongUse, match="a newer version may know it"):
        _ = LabelRatio(official="scannet-lr99").listed


def test_our_own_ratios_and_splits_keep_their_hashes() -> None:
    """Keys hash these: without an official list they have no fields newer than the keys."""
    assert LabelRatio.parse("20%").model_dump(mode="json") == {"percent": 20.0, "points": None, "boxes": None}
    split = split_scenes(ALL_SCANS, SCANNET, LabelRatio(percent=20))
    assert set(split.model_dump(mode="json")) == {"version", "train", "selection", "test", "sha256"}
    assert split.sha256 == SPLIT_AT_20
