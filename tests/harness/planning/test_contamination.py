"""The planner computes which of a task's scenes a pre-training saw, for procedural worlds and imported weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.benchmarks.datasets.contamination import Contamination
from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.contract.contamination import contamination_of
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage
from tests.tiny_data import files_of_tasks

ROOMS = {
    "synth-scannet": [*(f"scene{i:04d}_00" for i in range(8)), "scene0100_00", "scene0101_00"],
    "synth-s3dis": [*(f"Area_1__office_{i}" for i in range(8)), "Area_5__office_1"],
}
TINY = find(Profile, "tiny")
ALL = TINY.model_copy(update={"name": "all", "pretrain_scenes": "all"})


def world(name: str) -> PreparedDataset:
    """A procedural world as a manifest only, without files."""
    entries = tuple(
        SceneEntry(name=s, points=900, frames=4, pairs=2, boxes=1, point_classes=(0, 1), box_classes=(0,))
        for s in ROOMS[name]
    )
    manifest = Manifest(dataset=name, synthetic=True, scenes=entries, files=files_of_tasks(ROOMS[name]))
    return PreparedDataset(find(Dataset, name), Path("/nowhere"), manifest)


WORLDS = {name: world(name) for name in ROOMS}
TASKS = {"scannet-sem": "synth-scannet", "s3dis-sem": "synth-s3dis"}


def stages(method: str | Method, task: str, profile: Profile = TINY) -> list[PlannedStage]:
    known = find(Method, method) if isinstance(method, str) else method
    source = "synth-scannet" if known.needs.data else "none"
    cell = Cell(method=known.name, pretrain_dataset=source, task=task, budget="tiny", profile=profile.name)
    asked = find(Task, task).model_copy(update={"dataset": TASKS[task]})
    specs = CellSpecs(known, asked, find(Budget, "tiny"), profile)
    return stages_of(cell, specs, WORLDS, Machine(1, "torch", "cpu"))


def seen(method: str | Method, task: str, profile: Profile = TINY) -> Contamination:
    found = stages(method, task, profile)[-1].contamination
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["csc", "ours", "msc"])
def test_training_rooms_of_the_tested_world_are_in_domain(method: str) -> None:
    found = seen(method, "scannet-sem")
    assert (found.flag, found.mark, found.test) == ("none", "", 2)
    assert (found.selection_places_seen, found.selection, found.train_places_seen, found.train) == (1, 1, 7, 7)
    other = seen(method, "s3dis-sem")
    assert (other.flag, other.selection_places_seen, other.train_places_seen) == ("none", 0, 0)


def test_a_profile_that_pretrains_on_all_scenes_is_marked() -> None:
    found = seen("ours", "scannet-sem", ALL)
    assert (found.flag, found.test_seen) == ("scenes", 2) and found.mark == "pre-training saw 2 of 2 test scenes"
    assert seen("ours", "s3dis-sem", ALL).flag == "none", "rooms of another world"


def test_labels_of_another_world_are_no_labels_of_this_one() -> None:
    found = seen("supervised", "s3dis-sem")
    assert (found.flag, found.train_labels_seen) == ("none", 0)
    assert stages("supervised", "s3dis-sem")[0].spec.data.view == "labelled"  # type: ignore[union-attr]


def test_scratch_saw_nothing() -> None:
    found = seen("scratch", "scannet-sem")
    assert (found.flag, found.selection_places_seen, found.train_places_seen) == ("none", 0, 0)


def test_weights_from_elsewhere_are_unknown_unless_the_method_states_their_scenes() -> None:
    brought = find(Method, "scratch").model_copy(update={"name": "brought", "code_sha256": "1" * 64})
    assert seen(brought, "scannet-sem").flag == "unknown"
    stated = brought.model_copy(update={"pretrained_on": ("synth-scannet/scene0100_*",)})
    found = seen(stated, "scannet-sem")
    assert (found.flag, found.test_seen, found.stated) == ("scenes", 1, True)
    spec = stages(brought, "scannet-sem")
    beside = contamination_of(spec[-1].spec, [spec[0].spec], ("scannet:val", "synth-scannet/scene0101_00"))
    assert beside is not None and (beside.flag, beside.examples) == ("scenes", ("scene0101_00",))
    keys = {stages(method, "scannet-sem")[0].spec.key for method in (brought, stated)}
    assert len(keys) == 2, "the statement is in the key"


def test_what_an_earlier_stage_saw_reaches_the_fine_tuning() -> None:
    images, points, finetune = (stage.spec for stage in stages("ours", "scannet-sem"))
    assert images.data is not None
    read = images.model_copy(update={"data": images.data.model_copy(update={"scenes": ("scene0101_00",)})})
    found = contamination_of(finetune, [read, points])
    assert found is not None and (found.flag, found.examples) == ("scenes", ("scene0101_00",))
