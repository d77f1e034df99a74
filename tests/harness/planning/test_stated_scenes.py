"""Scenes that users state for weights from elsewhere: what matches nothing is refused or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.benchmarks.datasets.contamination import unmatched
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedCell
from pretrain_bench.harness.planning.stated_scenes import check_stated, known_datasets, lines_on_stated
from tests.conftest import REPOSITORY
from tests.harness.planning.test_contamination import TINY, WORLDS

KNOWN = known_datasets(["rooms"])
ROOMS = ("Area_5__room_1", "Area_1__room_2")


def stating(*items: str) -> Method:
    """Weights from elsewhere."""
    return find(Method, "scratch").model_copy(update={"name": "mine", "pretrained_on": items, "code_sha256": "1" * 64})


@pytest.mark.parametrize(
    ("item", "right"),
    [
        ("roms/*", "rooms/*"),
        ("labels:scanet/scene0011_*", "labels:scannet/scene0011_*"),
        ("semantikitti/08/*", "semantic"),
    ],
)
def test_a_misspelled_dataset_is_refused(item: str, right: str) -> None:
    with pytest.raises(WrongUse, match=r"method 'mine', pretrained_on .*: unknown dataset .*; did you mean '") as error:
        check_stated([stating(item)], KNOWN)
    assert f"did you mean '{right[:7]}" in str(error.value)


def test_other_datasets_may_be_stated() -> None:
    others = ("scannetpp/*", "scannet200/*", "kitti360/*", "structured3d/*", "matterport3d/*", "nuscenes/*", "waymo/*")
    own = ("scenenet/*", "my-rooms/*", "synthetic-scannet/*")
    check_stated([stating(*others, *own, "arkitscenes/*", "hypersim/*", "published:utonia", "scannet:train")], KNOWN)


def test_items_that_match_no_scene_of_their_dataset() -> None:
    right = [
        "rooms/*",
        "rooms/Area_5/*",
        "labels:rooms/Area_1__room_2",
        "s3dis/Area_5/*",
        "published:sonata",
        "other/*",
    ]
    assert unmatched(right, ROOMS, "rooms", False) == []
    wrong = ["rooms/Area_9/*", "labels:rooms/area_5/*", "rooms/Area_5", "s3dis/Area_2/*"]
    assert unmatched([*right, *wrong], ROOMS, "rooms", False) == wrong
    kitti = ["semantickitti/08/*", "kitti/08/*", "kitti/08/000001"]
    assert unmatched([*kitti, "kitti/09/*"], ["08__000123"], "semantickitti", False) == ["kitti/09/*"]


def test_a_plan_names_stated_scenes_that_match_nothing() -> None:
    task = find(Task, "s3dis-sem").model_copy(update={"dataset": "synth-s3dis"})
    cell = Cell(method="mine", pretrain_dataset="none", task="s3dis-sem", budget="tiny", profile=TINY.name)

    def lines(*items: str) -> list[str]:
        specs = CellSpecs(stating(*items), task, find(Budget, "tiny"), TINY)
        stages = stages_of(cell, specs, WORLDS, Machine(1, "torch", "cpu"))
        return lines_on_stated([PlannedCell(cell, tuple(stages))] * 2, KNOWN)

    assert lines("synth-s3dis/Area_5/*", "scannet:val") == []
    assert lines("synth-s3dis/Area_7/*", "area_5/*", "matterport3d/*", "scenenet/*") == [
        "warning: mine: 'synth-s3dis/Area_7/*' in its stated scenes match none of the 9 scenes of synth-s3dis, such as "
        "synth-s3dis/Area_1__office_0; a folder ends in /*",
        "warning: mine: 'area_5/*' in its stated scenes is of no dataset known here, so it does not count; did you mean "
        "'synth-s3dis/Area_5/*'?",
        "warning: mine: 'matterport3d/*' in its stated scenes is of no dataset known here, so it does not count",
        "warning: mine: 'scenenet/*' in its stated scenes is of no dataset known here, so it does not count; did you mean "
        "'scannet/*'?",
    ]


def test_a_misspelled_dataset_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    import pretrain_bench as pb

    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "scenes.txt").write_text("my-room/Area_5/*\n")
    own = REPOSITORY / "examples/own-task"
    suite = pb.cells(f"mine={tmp_path}/a.pth", own / "task.yaml", budget="smoke")
    overrides = RunOverrides(
        [f"{own / 'dataset.yaml'}={tmp_path}"], device="cpu", pretrained_on=[str(tmp_path / "scenes.txt")]
    )
    with pytest.raises(WrongUse, match=r"pretrained_on 'my-room/Area_5/\*': .*did you mean 'my-rooms/Area_5/\*'\?"):
        resolve_suite(suite, [], overrides)
