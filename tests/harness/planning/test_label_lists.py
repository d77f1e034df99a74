"""Official label lists in plans: user-named files, their checks, and where they are stored."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry
from pretrain_bench.benchmarks.datasets.splits import read_division, read_scene_list
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.probes import Protocol
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.harness.audit.rerun import planned_again
from pretrain_bench.harness.contract.stage import LABEL_ROWS_FILE, key_of
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.label_lists import check_label_files, official_split, parse_label_files
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, NotApplicable, PlannedStage
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.methods.finetune.detection import allowed_boxes
from pretrain_bench.methods.finetune.steps import allowed_labels
from tests.tiny_data import files_of_tasks

DIVISION = read_division("scannet.v1.tsv")
SCENES = [s for part in DIVISION for s in part]


def scannet(points: int = 5000, boxes: int = 9, name: str = "scannet") -> PreparedDataset:
    """All of ScanNet as a manifest only, without files."""
    dataset = find(Dataset, "scannet").model_copy(update={"name": name})
    entries = tuple(
        SceneEntry(name=s, points=points, boxes=boxes, point_classes=(0, 1), box_classes=(0, 1)) for s in SCENES
    )
    manifest = Manifest(dataset=name, synthetic=False, scenes=entries, files=files_of_tasks(SCENES))
    return PreparedDataset(dataset, Path("/nowhere"), manifest)


@pytest.fixture(scope="module")
def whole() -> PreparedDataset:
    return scannet()


@pytest.fixture(scope="module")
def points20(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the benchmark's format: 20 rows for each scan of the training list."""
    path = tmp_path_factory.mktemp("rows") / "points20"
    scans = sorted(read_scene_list("scannetv2_train.txt"))
    torch.save({s: np.arange(20) * 7 + len(s) for s in scans}, path)
    return path


def planned(source: PreparedDataset, ratio: str, task: str = "scannet-sem", **files: Path) -> PlannedStage:
    return stages(source, ratio, task, "finetune", **files)[-1]


def stages(source: PreparedDataset, ratio: str, task: str, protocol: Protocol, **files: Path) -> list[PlannedStage]:
    machine = Machine(1, "torch", "cpu", label_files=parse_label_files([f"{n}={p}" for n, p in files.items()], files))
    cell = Cell(
        method="scratch", pretrain_dataset="none", task=task, label_ratio=LabelRatio.parse(ratio), budget="tiny",
        profile="tiny", protocol=protocol,
    )  # fmt: skip
    specs = CellSpecs(find(Method, "scratch"), find(Task, task), find(Budget, "tiny"), find(Profile, "tiny"))
    return stages_of(cell, specs, {"scannet": source}, machine)


def test_a_shipped_list_is_the_training_set_and_its_hash_is_in_spec_and_record(whole: PreparedDataset) -> None:
    stage = planned(whole, "lr20")
    assert stage.spec.split is not None and stage.spec.label_ratio is not None and stage.cell is not None
    assert set(stage.spec.split.train) == read_scene_list("scannet_lr_20.txt")
    assert stage.spec.label_ratio.sha256 == stage.cell.label_ratio.sha256
    assert (stage.spec.label_ratio.sha256 or "").startswith("f266bc08") and stage.label_file is None
    nested = planned(whole, "20%")
    assert nested.spec.split is not None and len(nested.spec.split.train) == -(-len(DIVISION.train) // 5)
    assert stage.spec.key != nested.spec.key and stage.title == "scratch -> scannet-sem at scannet-lr20"
    assert stage.spec.recipe == nested.spec.recipe, "steps do not shrink with the labels"


def test_specs_without_official_lists_have_no_new_field(whole: PreparedDataset) -> None:
    payload = planned(whole, "20%").spec.model_dump(mode="json")
    assert "pretrained_on" not in payload and set(payload["label_ratio"]) == {"percent", "points", "boxes"}
    assert "excluded" not in payload["split"] and key_of(payload) == planned(whole, "20%").spec.key


def test_points_come_from_the_file_that_the_user_names(whole: PreparedDataset, points20: Path, tmp_path: Path) -> None:
    stage = planned(whole, "la20", la20=points20)
    sha256 = hashlib.sha256(points20.read_bytes()).hexdigest()
    assert stage.spec.label_ratio is not None and stage.cell is not None
    assert stage.spec.label_ratio.sha256 == stage.cell.label_ratio.sha256 == sha256
    assert (stage.spec.label_ratio.points, str(stage.spec.label_ratio)) == (20, "scannet-la20")
    assert stage.spec.split == planned(whole, "100%").spec.split and stage.label_file == points20
    (notice,) = check_label_files(["la20"], parse_label_files([f"la20={points20}"], ["la20"]))
    assert "not the known distributed file" in notice and sha256[:12] in notice
    root = tmp_path / "root"
    without_data = stage._replace(data=None, spec=stage.spec.model_copy(update={"data": None, "parents": {}}))
    root.mkdir()
    lay_out(root, without_data, {}, None)
    assert (root / "in" / LABEL_ROWS_FILE).read_bytes() == points20.read_bytes()
    changed = tmp_path / "changed"
    changed.write_bytes(b"another file")
    with pytest.raises(WrongUse, match="changed since this command started"):
        lay_out(root, without_data._replace(label_file=changed), {}, None)


def test_a_linear_probe_has_the_same_labels(whole: PreparedDataset, points20: Path) -> None:
    _, features, probe = stages(whole, "la20", "scannet-sem", "linear", la20=points20)
    assert features.label_file == points20 and features.spec.label_ratio == probe.spec.label_ratio
    _, features, probe = stages(whole, "lr5", "scannet-sem", "linear")
    assert features.spec.split == probe.spec.split and len(read_scene_list("scannet_lr_5.txt")) == 60
    assert set(probe.spec.split.train) == read_scene_list("scannet_lr_5.txt")  # type: ignore[union-attr]
    assert probe.contamination is not None and probe.contamination.flag == "none", (
        "features do not count as pre-training"
    )


def test_an_audit_says_which_file_it_needs_to_run_a_cell_again(whole: PreparedDataset, points20: Path) -> None:
    run: Any = SimpleNamespace(name="finetune/x", spec=planned(whole, "la20", la20=points20).spec)
    with pytest.raises(WrongUse, match="finetune/x: needs the file of scannet-la20, which stores do not contain"):
        planned_again([run], print)


def test_labels_outside_of_the_listed_rows_are_ignored_in_training(tmp_path: Path) -> None:
    labelled = tmp_path / "data/scannet/labelled/scene0191_00"
    labelled.mkdir(parents=True)
    np.save(labelled / "semantic.npy", np.arange(40, dtype=np.uint8) % 20)
    np.save(labelled / "instance.npy", np.arange(40, dtype=np.int32))
    np.save(labelled / "boxes.npy", np.arange(40, dtype=np.float32).reshape(5, 8))
    (tmp_path / "in").mkdir()
    torch.save({"scene0191_00": np.array([3, 17, 3])}, tmp_path / "in" / LABEL_ROWS_FILE)

    def context(ratio: str) -> Any:
        spec = SimpleNamespace(label_ratio=LabelRatio.parse(ratio), data=None)
        return SimpleNamespace(root=tmp_path, view=tmp_path / "data/scannet", spec=spec)

    kept = allowed_labels(context("la20"), "scene0191_00")
    assert np.flatnonzero(kept.semantic != 255).tolist() == [3, 17] and kept.semantic[17] == 17
    assert np.flatnonzero(kept.instance != -1).tolist() == [3, 17]
    assert (allowed_labels(context("lr20"), "scene0191_00").semantic != 255).all(), "a list of scans labels all of each"
    (tmp_path / "in" / LABEL_ROWS_FILE).unlink()
    torch.save({"scene0191_00": (np.array([4, 1]), np.array([9, 2]))}, tmp_path / "in" / LABEL_ROWS_FILE)
    assert allowed_boxes(context("lb2"), "scene0191_00")[:, 0].tolist() == [32, 8]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({s: np.arange(20) for s in DIVISION.train[1:]}, "no rows for training scene"),
        ({s: np.arange(20) + 4990 for s in DIVISION.train}, "row 5,009 of scene .* which has 5,000 points here"),
        ({s: np.arange(50) for s in DIVISION.train}, "50 points in a scan, but scannet-la20 has 20"),
    ],
)
def test_a_file_that_does_not_fit_the_data_is_refused(
    rows: dict[str, Any], words: str, whole: PreparedDataset, tmp_path: Path
) -> None:
    torch.save(rows, tmp_path / "points20")
    with pytest.raises(NotApplicable, match=words):
        planned(whole, "la20", la20=tmp_path / "points20")


def test_a_pickle_that_holds_more_than_arrays_is_refused_by_name(whole: PreparedDataset, tmp_path: Path) -> None:
    torch.save({"scene0191_00": Path("/tmp")}, tmp_path / "points20.pth")
    with pytest.raises(NotApplicable, match=r"points20\.pth: not a file of label indices that can be read safely"):
        planned(whole, "la20", la20=tmp_path / "points20.pth")


def test_limited_boxes_and_scenes_of_detection(whole: PreparedDataset, tmp_path: Path) -> None:
    train = sorted(read_scene_list("scannetv2_train.txt"))
    torch.save({s: (np.array([0, 8]), np.array([1, 9])) for s in train}, tmp_path / "boxes2")
    boxes = planned(whole, "lb2", task="scannet-det", lb2=tmp_path / "boxes2")
    assert boxes.spec.label_ratio is not None and boxes.spec.label_ratio.boxes == 2 and boxes.label_file is not None
    (tmp_path / "10.txt").write_text("\n".join(train[:120]) + "\n")
    scenes = planned(whole, "det-lr10", task="scannet-det", **{"det-lr10": tmp_path / "10.txt"})
    assert scenes.spec.split is not None and scenes.spec.split.train == tuple(train[:120])
    assert scenes.spec.label_ratio is not None and scenes.spec.label_ratio.sha256
    (tmp_path / "10.txt").write_text(f"{train[0]}\n{train[0]}\n")
    with pytest.raises(NotApplicable, match="each once"):
        planned(whole, "det-lr10", task="scannet-det", **{"det-lr10": tmp_path / "10.txt"})


@pytest.mark.parametrize(
    ("ratio", "task", "words"),
    [
        ("lr10", "scannet-det", "is for semantic and instance tasks, not for a detection task"),
        ("kitti-every100", "scannet-sem", "is for scans of drives, not for 'scannet'"),
    ],
)
def test_a_list_of_other_tasks_or_data_is_not_applicable(
    ratio: str, task: str, words: str, whole: PreparedDataset
) -> None:
    with pytest.raises(NotApplicable, match=words):
        planned(whole, ratio, task)


def test_lists_of_real_scans_never_meet_a_synthetic_world() -> None:
    """Procedural rooms have names in ScanNet's format, some of which are on the lists."""
    real = scannet()
    synthetic = real._replace(manifest=real.manifest.model_copy(update={"synthetic": True}))
    with pytest.raises(DataError, match="lists real scans"):
        official_split(LabelRatio.parse("lr20"), "semantic", synthetic, SCENES, "held_out", {})


def test_every_hundredth_scan_needs_all_training_scans() -> None:
    scans = [f"00__{i:06d}" for i in range(300)] + ["08__000000"]
    entries = tuple(SceneEntry(name=s, points=9, point_classes=(0,)) for s in scans)
    manifest = Manifest(dataset="semantickitti", synthetic=False, scenes=entries, files=files_of_tasks(scans))
    part = PreparedDataset(find(Dataset, "semantickitti"), Path("/nowhere"), manifest)
    ratio = LabelRatio.parse("kitti-every100")
    with pytest.raises(DataError, match="defined on 19,130 training scans; 'semantickitti' has 300 here"):
        official_split(ratio, "semantic", part, scans, "held_out", {})
    streets = part._replace(manifest=manifest.model_copy(update={"synthetic": True}))
    chosen = official_split(ratio, "semantic", streets, scans, "held_out", {})
    assert chosen.split.train == ("00__000000", "00__000100", "00__000200") and chosen.ratio.sha256 is None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("la20", "expected NAME=FILE"),
        ("la30=x", "expected NAME=FILE, NAME one of scannet-la20"),
        ("lr20=x", "scannet-lr20 needs no file"),
        ("la20=/nowhere/points20", "cannot be read"),
    ],
)
def test_options_are_checked(option: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        parse_label_files([option], ["la20"])


def test_a_file_that_no_ratio_uses_is_not_read() -> None:
    assert parse_label_files(["la20=/nowhere/points20"], ["100%", "la50"]) == {}


def test_a_ratio_without_its_file_is_refused_before_anything_starts(bench: Any) -> None:
    done = bench(
        "run", "--method", "scratch", "--task", "scannet-sem", "--label-ratio", "la50", "--budget", "smoke", code=2
    )
    assert "name its file with --label-split scannet-la50=FILE" in done.stderr and "points50 of" in done.stderr
