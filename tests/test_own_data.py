"""A user's own data and classes: from ten lines of YAML to a report, `bench data init`, and their documentation page."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets.coverage import split_coverage
from pretrain_bench.benchmarks.datasets.splits import split_scenes
from pretrain_bench.benchmarks.datasets.views import load_labels
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import DataView
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.recipes import finetune_recipe
from tests.conftest import NANO, REPOSITORY, Bench, run_records, write_room

PAGE = (REPOSITORY / "docs/own-data.md").read_text()
SHORT_DATASET, SHORT_TASK = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
(COMMANDS,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture(autouse=True)
def _prepare_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoids starting worker processes for a few small scenes."""
    monkeypatch.setattr("pretrain_bench.benchmarks.datasets.prepare.worker_count", lambda: 1)


@pytest.fixture(scope="module")
def halls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms in the S3DIS layout in custom folders; their chairs are robot_arms, a class unknown to this project."""
    root = tmp_path_factory.mktemp("halls")
    rng = np.random.default_rng(11)
    for name in [f"ground/hall_{i}" for i in range(6)] + ["top/hall_1"]:
        write_room(root / name / "Annotations", rng)
        (root / name / "Annotations/chair_1.txt").rename(root / name / "Annotations/robot_arm_1.txt")
    return root


def own(folder: Path, text: str) -> Dataset:
    (folder / "mine.yaml").write_text(text)
    return find(Dataset, str(folder / "mine.yaml"))


def ready(dataset: Dataset, root: Path) -> PreparedDataset:
    return DataSources({dataset.name: root}, {dataset.name: dataset}).prepare(dataset.name)


def test_ten_lines_are_enough() -> None:
    lines = (SHORT_DATASET + SHORT_TASK).splitlines()
    assert len(lines) <= 10 and all(line.strip() for line in lines)


@pytest.mark.slow  # in the fast set, test_plug_ins runs the example
@pytest.mark.usefixtures("undrawn")
def test_ten_lines_of_yaml_go_to_a_report(halls: Path, bench: Bench, tmp_path: Path) -> None:
    classes = SHORT_DATASET.replace("[wall, floor, chair, table, clutter]", "[wall, floor, robot_arm]")
    (tmp_path / "my-rooms.yaml").write_text(classes.replace("Area_5", "top"))
    (tmp_path / "my-rooms-sem.yaml").write_text(SHORT_TASK)
    data = ["--data", f"my-rooms.yaml={halls}"]
    bench("data", "prepare", "my-rooms.yaml", "--root", str(halls), "--strict")
    bench("run", "--method", "scratch", "--task", "my-rooms-sem.yaml", *data, *NANO, "--threads", "1")
    record = next(r for r in run_records(tmp_path / "runs") if r["kind"] == "finetune")
    assert (record["outcome"], record["dataset"]) == ("ok", "my-rooms")
    spec = (
        record["spec"]
        if "spec" in record
        else json.loads(next((tmp_path / "runs").glob("finetune/*/spec.json")).read_text())
    )
    assert spec["recipe"]["voxel_metres"] == 0.1 and spec["data"]["classes"] == ["wall", "floor", "robot_arm"]
    assert spec["split"]["test"] == ["top__hall_1"] and "label_ids" not in spec["data"]
    bench("report")
    assert "my-rooms-sem" in (tmp_path / "report/index.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_page_runs_as_it_stands(bench: Bench, tmp_path: Path) -> None:
    """Run all commands in order, with the smallest budget."""
    for line in COMMANDS.splitlines():
        words = shlex.split(line.replace("--budget smoke", shlex.join([*NANO, "--threads", "1"])))
        done = bench(*words[1:])
        if words[1:3] == ["data", "info"]:
            assert "layout:   S3DIS text files (s3dis), 7 scenes" in done.stdout
        if words[1:3] == ["data", "init"]:
            assert "next: check both, then bench run" in done.stdout
    record = next(r for r in run_records(tmp_path / "runs") if r["kind"] == "finetune")
    assert (record["outcome"], record["cell"]["task"]) == ("ok", "rooms-sem")


def test_the_page_lists_every_field_and_layout() -> None:
    rows = set(re.findall(r"`([a-z0-9_-]+)`", "\n".join(re.findall(r"^\| (.*?) \|", PAGE, flags=re.M))))
    assert {n for n, card in LAYOUTS.items() if card.stands_for} <= rows
    assert set(Task.model_fields) - {"title", "evaluation"} <= rows
    (shipped,) = re.findall(r"^(`test_scenes_file`.*) describe datasets that ship", PAGE, flags=re.M)
    assert set(Dataset.model_fields) <= rows | set(re.findall(r"`(\w+)`", shipped))


def test_init_writes_a_file_that_is_read_and_counts_the_classes(halls: Path, bench: Bench, tmp_path: Path) -> None:
    shown = bench("data", "init", str(halls), "--out", "halls.yaml").stdout
    assert (
        "halls.yaml: S3DIS text files, 7 scenes, 3 classes" in shown
        and "halls-sem.yaml: a semantic task on it" in shown
    )
    text = (tmp_path / "halls.yaml").read_text()
    assert "  - robot_arm  # 7 files" in text and "stuff_classes: [floor, wall]" in text
    dataset, task = (find(kind, str(tmp_path / f)) for kind, f in ((Dataset, "halls.yaml"), (Task, "halls-sem.yaml")))
    assert dataset.classes == ("floor", "robot_arm", "wall") and dataset.test_scenes == ("top",)
    assert task.kind == "semantic" and task.dataset == "halls" and task.headline_metric == "miou_voxel"
    data = ready(dataset, halls)
    split = split_scenes(data.scenes, dataset, LabelRatio())
    assert split.test == ("top__hall_1",) and len(split.train) == 5


def test_a_class_that_is_left_out_is_unlabelled_and_reported(halls: Path, tmp_path: Path) -> None:
    short = "name: mine\nlayout: s3dis\nclasses: [wall, floor]\ntest_scenes: [top]\n"
    data = ready(own(tmp_path, short), halls)
    labels = load_labels(data.folder, "top__hall_1").semantic
    assert set(np.unique(labels)) == {0, 1, 255}
    assert [p for p in data.manifest.problems if "class 'robot_arm' is not among the dataset's classes" in p]
    strict = own(tmp_path, short + "raw_classes: [wall, floor]\n")
    with pytest.raises(Exception, match="class 'robot_arm' in the file name is not one of wall, floor"):
        ready(strict, halls)


def test_a_misspelled_or_repeated_class_is_named(halls: Path, bench: Bench, tmp_path: Path) -> None:
    """A class without points would be left out of every score, so that a misspelled one seems perfect."""
    text = "name: halls\nlayout: s3dis\nclasses: [floor, {}, wall]\ntest_scenes: [top]\n"
    (tmp_path / "halls.yaml").write_text(text.format("robot_arn"))
    (tmp_path / "bench.yaml").write_text(f"data: {{halls.yaml: {halls}}}\n")
    said = bench("data", "prepare", "halls.yaml").stderr  # the root is that of bench.yaml
    assert "halls: class 'robot_arn' labels no point of any scene; did you mean 'robot_arm'?" in said
    (tmp_path / "halls.yaml").write_text(text.format("roof"))
    said = bench("data", "prepare", "halls.yaml").stderr
    assert "halls: class 'roof' labels no point of any scene; check its spelling in `classes`" in said
    (tmp_path / "halls.yaml").write_text(text.format("floor"))
    said = bench("data", "prepare", "halls.yaml", code=2).stderr
    assert "halls.yaml: classes: 'floor' is listed twice; remove one" in said
    (tmp_path / "bench.yaml").write_text(f"data: {{s3diss: {halls}}}\n")
    assert "Did you mean 's3dis'?" in bench("data", "prepare", "s3dis", code=2).stderr


def test_a_list_of_scenes_may_be_a_file_and_missing_ones_count(halls: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("top/hall_1\n\ntop/hall_2\n")
    text = "name: mine\nlayout: s3dis\nclasses: [wall]\ntest_scenes: test.txt\ntrain_scenes: [ground/hall_0, ground/hall_1]\n"
    dataset = own(tmp_path, text)
    assert dataset.test_scenes == ("top__hall_1", "top__hall_2")
    data = ready(dataset, halls)
    split = split_scenes(data.scenes, dataset, LabelRatio())
    assert (split.train, split.test) == (("ground__hall_0", "ground__hall_1"), ("top__hall_1",))
    coverage = split_coverage(dataset, data.manifest, split.test)
    assert (coverage.expected, coverage.scored, coverage.missing) == (2, 1, ("top__hall_2",))
    with pytest.raises(WrongUse, match=r"test_scenes: .*gone.txt: cannot be read: No such file"):
        own(tmp_path, text.replace("test.txt", "gone.txt"))


def test_a_task_may_score_some_of_the_classes(halls: Path, bench: Bench, tmp_path: Path) -> None:
    dataset = own(tmp_path, "name: mine\nlayout: s3dis\nclasses: [wall, floor, robot_arm]\ntest_scenes: [top]\n")
    data = ready(dataset, halls)
    whole = np.asarray(load_labels(data.folder, "top__hall_1").semantic)
    some = np.asarray(load_labels(data.folder, "top__hall_1", (2, 0)).semantic)
    assert (some[whole == 2] == 0).all() and (some[whole == 0] == 1).all() and (some[whole == 1] == 255).all()
    (tmp_path / "few.yaml").write_text("name: few\nkind: semantic\ndataset: mine\nclasses: [robot_arm, roof]\n")
    stderr = bench(
        "run", "--method", "scratch", "--task", "few.yaml", "--data", f"mine.yaml={halls}", *NANO, code=2
    ).stderr
    assert "classes: 'roof' is not a class of dataset 'mine', which has wall, floor, robot_arm" in stderr


@pytest.mark.slow
def test_a_task_on_some_of_the_classes_runs(halls: Path, bench: Bench, tmp_path: Path) -> None:
    own(tmp_path, "name: mine\nlayout: s3dis\nclasses: [wall, floor, robot_arm]\ntest_scenes: [top]\n")
    (tmp_path / "few.yaml").write_text("name: few\nkind: semantic\ndataset: mine\nclasses: [robot_arm, wall]\n")
    bench(
        "run", "--method", "scratch", "--task", "few.yaml", "--data", f"mine.yaml={halls}", *NANO, "--threads", "1"
    )  # fmt: skip
    spec = json.loads(next((tmp_path / "runs").glob("finetune/*/spec.json")).read_text())
    assert (spec["data"]["classes"], spec["data"]["label_ids"]) == (["robot_arm", "wall"], [2, 0])
    record = next(r for r in run_records(tmp_path / "runs") if r["kind"] == "finetune")
    assert (
        record["outcome"] == "ok"
        and "iou_voxel/1_final" in record["metrics"]
        and "iou_voxel/2_final" not in record["metrics"]
    )


def test_unset_label_ids_are_no_part_of_a_key() -> None:
    view = DataView(dataset="d", manifest_sha256="0" * 64, synthetic=False, view="labelled", classes=("a",))
    assert "label_ids" not in view.model_dump(mode="json")
    assert view.model_copy(update={"label_ids": (3,)}).model_dump(mode="json")["label_ids"] == [3]


def test_the_recipe_of_an_own_task_has_its_voxel_size() -> None:
    task = find(Task, "s3dis-sem").model_copy(update={"voxel_metres": 0.03})
    profile = find(Profile, "headline")
    assert finetune_recipe(profile, task).voxel_metres == 0.03
    assert finetune_recipe(profile, find(Task, "s3dis-sem")).voxel_metres == 0.05
    with pytest.raises(ValueError, match="a detection task uses all box classes"):
        Task.model_validate({"name": "x", "kind": "detection", "dataset": "scannet", "classes": ["bed"]})


def test_ids_of_a_laser_name_its_classes(tmp_path: Path) -> None:
    dataset = own(
        tmp_path, "name: mine\nlayout: semantickitti\nclasses: [track, tree]\nclass_ids: [5, 9]\ntest_scenes: ['01']\n"
    )
    with pytest.raises(WrongUse, match='test_scenes: 1 is not text; put names such as "08" in quotes'):
        own(tmp_path, "name: mine\nlayout: semantickitti\nclasses: [track]\ntest_scenes: [01]\n")
    assert dataset.learning_map == {5: 1, 9: 2} and dataset.provides == LAYOUTS["semantickitti"].provides
