"""Methods, tasks and datasets from outside the repository: from their folder or file to a run, a report and an audit."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method, MethodStage
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite, parse_filters
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.events import Ledger
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import parse_data_options
from pretrain_bench.harness.planning.recipes import (
    check_sections,
    misspelled_sections,
    recipe_model,
    stage_recipe,
    values_from_task,
)
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.training.loop import StepResult, Training
from tests.conftest import NANO, REPOSITORY, Bench, run_records

EXAMPLE = REPOSITORY / "examples/own-method"
OWN_TASK = REPOSITORY / "examples/own-task"

TOY_RECIPE = """
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work

class ToyRecipe(Recipe):
    scale: float = 1.0

    @property
    def samples_per_step(self) -> int:
        return 1

    def work_per_step(self) -> Work:
        return Work()
"""
TOY_STAGE = """
import torch
from pretrain_bench.harness.contract.events import Ledger, Start, Usage
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.training.checkpoint import save_backbone
from .recipe import ToyRecipe

def run(context):
    scale = context.recipe(ToyRecipe).scale
    context.start(Start(total_steps=0))
    context.events.write(Usage(ledger=Ledger()))
    network = seeded_backbone(1, context.spec.network, 0.1, context.spec.sparse_backend, context.seed("weights"))
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(scale)
    save_backbone(network, context.artifacts)
    return {"scale": scale}
"""


def toy(folder: Path, **changes: str) -> Path:
    """A complete method in a folder: scaled random weights."""
    folder.mkdir(parents=True)
    text = (
        'name: toy\ntitle: "A toy: scaled initial weights"\ngroup: baseline\ncolour: "#123456"\nplace: 7\nneeds: {data: false}\n'
        'stages:\n  - {name: scale, share: 0.0, recipe: ToyRecipe, title: "Scale the initial weights"}\n'
    )
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "method.yaml").write_text(text)
    (folder / "recipe.py").write_text(TOY_RECIPE)
    (folder / "scale.py").write_text(TOY_STAGE)
    (folder / "profiles.yaml").write_text("headline: {scale: {scale: 0.25}}\nsmoke: {scale: {scale: 0.5}}\n")
    return folder


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_toy_method_goes_from_its_folder_to_report_and_audit(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    own = ["--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--threads", "1"]
    refused = bench("run", "--method", str(folder), *own, code=2).stderr
    assert "method 'toy' is Python code from" in refused and "add --trust-code if you trust it" in refused
    assert not (tmp_path / "runs").exists()
    bench("run", "--method", str(folder), "--trust-code", *own)
    pretrain, finetune = sorted(run_records(tmp_path / "runs"), key=lambda r: r["kind"], reverse=True)
    assert (pretrain["outcome"], finetune["outcome"]) == ("ok", "ok")
    card = {
        "title": "A toy: scaled initial weights",
        "group": "baseline",
        "colour": "#123456",
        "place": 7,
        "uses_labels": False,
        "origin": "folder",
    }
    assert pretrain["method_card"] == finetune["method_card"] == card
    assert pretrain["stage_metrics"] == {"scale": 0.5}, "nano extends smoke, which extends headline"
    assert pretrain["label_isolation"] == {"local": "none", "bubblewrap": "mounts"}[pretrain["executor"]]
    assert "372 of 374" in json.dumps(finetune["notes"])
    again = bench("run", "--method", str(folder), "--trust-code", *own)
    assert "nothing to do" in again.stdout
    bench("report")
    page = (tmp_path / "report/index.html").read_text()
    assert "toy" in page and "#123456" in page, "its own name and colour, without its folder"
    verdicts = json.loads(bench("audit", "--json", code=1).stdout)
    failed = {v["check"] for v in verdicts if v["verdict"] == "failed"}
    assert failed == {"the whole test split is scored"}, "the data are one room of Area 5"
    # A change of its code makes its runs stale, also the fine-tuning, whose own code did not change but whose parent did.
    (folder / "scale.py").write_text(TOY_STAGE + "\n# a change\n")
    plan = bench("plan", *_suite(tmp_path, folder, s3dis_root), "--trust-code").stdout
    assert "stale" in plan and "its code changed" in plan


@pytest.mark.slow
def test_a_toy_method_passes_the_conformance_checks(bench: Bench, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    assert "add --trust-code" in bench("methods", "check", str(folder), code=2).stderr
    results = json.loads(bench("methods", "check", str(folder), "--trust-code", "--json").stdout)
    assert [r for r in results if r["verdict"] == "failed"] == []
    assert {r["check"] for r in results if r["verdict"] == "ok"} >= {"run", "events", "budget", "repetition", "seed"}


def _suite(tmp_path: Path, folder: Path, s3dis_root: Path) -> list[str]:
    text = f"name: own\nversion: 1\nbudget: {NANO[1]}\nprofile: {NANO[3]}\nmethods: [{folder}]\ntasks: [s3dis-sem]\n"
    (tmp_path / "own.yaml").write_text(text)
    return [str(tmp_path / "own.yaml"), "--data", f"s3dis={s3dis_root}", "--threads", "1"]


@pytest.mark.slow
def test_the_example_learns_from_frames(bench: Bench, s3dis_root: Path, rgbd_root: Path, tmp_path: Path) -> None:
    profile = tmp_path / "nano.yaml"
    own = "  colours: {predict: {steps: 4, frames_per_step: 2, voxel_metres: 0.2, max_voxels_per_frame: 400}}\n"
    profile.write_text(Path(NANO[3]).read_text().replace("methods:\n", f"methods:\n{own}", 1))
    bench(
        "run", "--method", str(EXAMPLE), "--trust-code", "--task", "s3dis-sem", "--budget", NANO[1], "--profile", str(profile),
        "--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={rgbd_root}", "--threads", "1",
    )  # fmt: skip
    pretrain = next(r for r in run_records(tmp_path / "runs") if r["kind"] == "pretrain")
    assert pretrain["outcome"] == "ok" and pretrain["ledger"]["optimizer_steps"] == 4
    assert pretrain["method_card"]["origin"] == "folder" and pretrain["ledger"]["frames"] == 8


def test_containers_do_not_hold_it(bench: Bench, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    said = bench(
        "run", "--method", str(folder), "--trust-code", "--task", "s3dis-sem", "--budget", "smoke", "--executor", "docker", code=2
    ).stderr  # fmt: skip
    assert "method 'toy' is Python code from outside this project, which containers do not include" in said


def package_with_toy(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose entry point names the toy method."""
    toy(site / "some_package/toy")
    (site / "some_package/__init__.py").write_text("")
    info = site / "some_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pretrain_bench.methods]\ntoy = some_package.toy\n")
    monkeypatch.syspath_prepend(str(site))


def test_a_package_brings_a_method_by_its_entry_point(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    package_with_toy(site, monkeypatch)
    names = [m["name"] for m in json.loads(bench("methods", "ls", "--json").stdout)]
    assert "toy" in names and "ours" in names
    assert find(Method, "toy").card.origin == "package"
    (site / "some_package/toy/method.yaml").unlink()
    said = bench("run", "--method", "toy", "--task", "s3dis-sem", *NANO, code=2).stderr
    assert "entry point 'toy' of pretrain_bench.methods: " in said and "does not exist" in said
    assert "toy" not in [m["name"] for m in json.loads(bench("methods", "ls", "--json").stdout)], (
        "the others are listed"
    )
    (site / "some_package/__init__.py").write_text("raise RuntimeError('not to be imported')")
    bench("methods", "ls")


def test_a_recipe_takes_from_its_task_only_what_the_task_has() -> None:
    method, profile = find(Method, "csc"), find(Profile, "headline")
    stage = method.stages[0].model_copy(update={"from_task": ("voxel_metres",)})
    followed = values_from_task(method, stage, profile, find(Task, "s3dis-sem"))
    assert followed == {"voxel_metres": 0.05}
    before, after = stage_recipe(method, stage, profile), stage_recipe(method, stage, profile, followed)
    assert before is not None and after == before.model_copy(update=followed) != before
    wrong = stage.model_copy(update={"from_task": ("seeds",)})
    with pytest.raises(
        WrongUse, match="from_task names 'seeds', which a recipe of kind 'semantic' lacks; it has batch"
    ):
        values_from_task(method, wrong, profile, find(Task, "s3dis-sem"))
    with pytest.raises(ValueError, match="from_task needs a recipe"):
        MethodStage(name="scale", share=1, title="x", from_task=("steps",))


@pytest.mark.slow  # in the fast set, the toy method in a folder is run
def test_a_method_of_a_package_is_run(
    bench: Bench, s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_with_toy(tmp_path / "site", monkeypatch)
    bench("run", "--method", "toy", "--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--threads", "1")
    assert {r["method_card"]["origin"] for r in run_records(tmp_path / "runs")} == {"package"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.py", "raise ValueError('no')", "recipe.py: cannot be imported: ValueError: no"),
        ("recipe.py", "ToyRecipe = 3", "recipe.py: no class 'ToyRecipe' that extends Recipe"),
        (
            "profiles.yaml",
            "smoke: {scales: {scale: 1}}",
            r"profiles.yaml: smoke: unknown stage 'scales', did you mean 'scale'\? \(stages of the method: scale\)",
        ),
        ("profiles.yaml", "smoke: 3", r"profiles.yaml: smoke: expected a mapping of stages \(scale\) to fields"),
        ("profiles.yaml", "smoke: {scale: {size: 1}}", r"profile 'smoke', methods.toy.scale: size: unknown key"),
    ],
)
def test_mistakes_in_a_method_folder_name_the_file(name: str, content: str, message: str, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / name).write_text(content)
    method = find(Method, str(folder))
    with pytest.raises(WrongUse, match=message):
        stage_recipe(method, method.stages[0], find(Profile, "smoke"))


def test_a_stage_needs_a_file_and_a_name_that_is_free(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "scale.py").unlink()
    with pytest.raises(WrongUse, match=r"stage 'scale' has no scale.py beside it; .* or names the container image"):
        find(Method, str(folder))
    dotted = toy(tmp_path / "dotted", **{"name: scale,": "name: pre.scale,"})
    with pytest.raises(
        WrongUse, match="stage 'pre.scale': its file is imported, so its name must be a valid Python name"
    ):
        find(Method, str(dotted))
    with pytest.raises(WrongUse, match="'csc' is a method that ships; choose another name"):
        find(Method, str(toy(tmp_path / "other", **{"name: toy": "name: csc"})))


def test_two_folders_of_one_name_in_one_process_keep_their_code(tmp_path: Path) -> None:
    one, two = toy(tmp_path / "one"), toy(tmp_path / "two")
    (two / "recipe.py").write_text(TOY_RECIPE.replace("scale: float = 1.0", "scale: float = 9.0"))
    defaults = []
    for folder in (one, two, one):
        method = find(Method, str(folder))
        defaults.append(recipe_model(method, method.stages[0])().model_dump()["scale"])
    assert defaults == [1.0, 9.0, 1.0]
    assert "recipe" not in sys.modules and "scale" not in sys.modules


def test_runs_beside_the_code_and_compiled_files_are_no_part_of_it(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    before = find(Method, str(folder)).code_sha256
    for name in ("runs/x.json", "report/index.html", "__pycache__/scale.pyc", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert find(Method, str(folder)).code_sha256 == before
    (folder / "notes.txt").write_text("x")
    assert find(Method, str(folder)).code_sha256 != before


def test_a_profile_names_stages_that_exist() -> None:
    profile = find(Profile, "smoke").model_copy(update={"methods": {"ours": {"pixels": {}}}})
    with pytest.raises(WrongUse, match="methods.ours: unknown stage 'pixels'; it has images, points"):
        check_sections(profile, {"ours": find(Method, "ours")})


def test_a_section_with_a_misspelled_name_is_named(tmp_path: Path) -> None:
    """It has no effect: the method would train with its full-size recipe."""
    profile = find(Profile, "smoke").model_copy(update={"methods": {"ourz": {}, "ours": {}, "entirely-different": {}}})
    folder = toy(tmp_path / "toy")
    (folder / "profiles.yaml").write_text("smokee: {scale: {}}\ntiny: {scale: {}}\nmine: {scale: {}}\n")
    assert misspelled_sections(profile, [find(Method, "ours"), find(Method, str(folder))]) == [
        "profile 'smoke': methods.ourz is not used; did you mean 'ours'?",
        f"{folder / 'profiles.yaml'}: section 'smokee' is not used with profile 'smoke'; did you mean 'smoke'?",
    ]


def test_a_section_with_a_number_as_its_name_is_refused(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "profiles.yaml").write_text("2024: {scale: {}}\n")
    with pytest.raises(
        WrongUse, match=r"profiles.yaml: 2024: expected the name of a profile; quote a name that looks like"
    ):
        misspelled_sections(find(Profile, "smoke"), [find(Method, str(folder))])


def test_a_method_without_a_section_for_the_profile_says_so(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    method, profile = find(Method, str(folder)), find(Profile, "smoke")
    assert misspelled_sections(profile, [method]) == []
    (folder / "profiles.yaml").write_text("paper-literal: {scale: {scale: 0.25}}\n")
    (line,) = misspelled_sections(profile, [method])
    assert line == (
        f"{folder / 'profiles.yaml'}: no section for {' or '.join(reversed(profile.lineage))}, so with profile 'smoke' toy has the "
        "defaults of its recipe.py; sections: paper-literal"
    )


def test_the_profile_of_the_page_changes_the_recipe(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/plug-ins.md").read_text()
    (tmp_path / "slower.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, flags=re.S)[0])
    ours = find(Method, "ours")
    points = next(stage for stage in ours.stages if stage.name == "points")
    profiles = (find(Profile, name) for name in ("tiny", str(tmp_path / "slower.yaml")))
    before, after = (stage_recipe(ours, points, profile) for profile in profiles)
    assert before is not None and after is not None
    expected = before.model_dump()
    expected["optimiser"]["learning_rate"] = 0.05
    assert after.model_dump() == expected != before.model_dump()


def test_a_missing_recipe_names_the_file_and_the_stage(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "recipe.py").unlink()
    method = find(Method, str(folder))
    with pytest.raises(WrongUse, match=r"toy/recipe\.py: no such file, although stage 'scale' in .*method\.yaml names"):
        stage_recipe(method, method.stages[0], find(Profile, "smoke"))


@pytest.mark.usefixtures("undrawn")
def test_an_own_task_on_an_own_dataset(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    where = [
        "--method", "scratch", "--task", str(OWN_TASK / "task.yaml"), "--data", f"{OWN_TASK / 'dataset.yaml'}={s3dis_root}",
        *NANO, "--threads", "1",
    ]  # fmt: skip
    bench("run", *where)
    record = next(r for r in run_records(tmp_path / "runs") if r["kind"] == "finetune")
    assert record["outcome"] == "ok" and not record["synthetic"]
    assert (record["cell"]["task"], record["dataset"]) == ("my-rooms-sem", "my-rooms")
    bench("report")
    assert "my-rooms-sem" in (tmp_path / "report/index.html").read_text()
    verdicts = json.loads(bench("audit", "--json").stdout)
    assert not [v for v in verdicts if v["verdict"] == "failed"]
    rescored = [v for v in verdicts if v["check"] == "metrics recomputed from predictions"]
    assert [v["verdict"] for v in rescored] == ["ok"], rescored
    said = bench("run", "--method", "scratch", "--task", str(OWN_TASK / "task.yaml"), *NANO, code=2).stderr
    assert "unknown dataset 'my-rooms'; for one of your own, give its file: --data FILE.yaml=DIR" in said


def test_own_names_do_not_take_those_that_ship(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((OWN_TASK / "dataset.yaml").read_text().replace("name: my-rooms", "name: s3dis"))
    with pytest.raises(WrongUse, match="name: 's3dis' is a dataset that ships; choose another name"):
        parse_data_options([f"{path}=/data"], "--data")
    path.write_text((OWN_TASK / "dataset.yaml").read_text())
    roots, own = parse_data_options([f"{path}=/some=where", "s3dis=/data"], "--data")
    assert roots == {"my-rooms": Path("/some=where"), "s3dis": Path("/data")} and own["my-rooms"].layout == "s3dis"
    assert isinstance(own["my-rooms"], Dataset)


def test_odd_files_in_a_method_folder_are_named(tmp_path: Path) -> None:
    for name, make, message in (
        ("broken.py", lambda p: p.write_text("def f(:\n"), r"broken.py, line 1: not valid Python"),
        ("gone.py", lambda p: p.symlink_to("nowhere"), r"gone.py: cannot be read as a file"),
        ("lib", lambda p: p.symlink_to(tmp_path), r"lib: a link to a folder"),
        ("pipe", os.mkfifo, r"pipe: cannot be read as a file"),
    ):
        folder = toy(tmp_path / f"with-{name}")
        make(folder / name)
        with pytest.raises(WrongUse, match=message):
            find(Method, str(folder))


def test_a_recipe_that_was_edited_is_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy(tmp_path / "toy")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    defaults = []
    for value in ("1.0", "7.0"):
        (folder / "recipe.py").write_text(TOY_RECIPE.replace("scale: float = 1.0", f"scale: float = {value}"))
        method = find(Method, str(folder))
        defaults.append(recipe_model(method, method.stages[0])().model_dump()["scale"])
    assert defaults == [1.0, 7.0]


def test_the_recipe_of_a_container_does_not_run_here_untrusted(bench: Bench, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy", **{"needs: {data: false}": "needs: {data: false}\nimage: some:image"})
    (folder / "recipe.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + TOY_RECIPE)
    suite = tmp_path / "own.yaml"
    suite.write_text(f"name: own\nversion: 1\nbudget: smoke\nmethods: [{folder}]\ntasks: [s3dis-sem]\n")
    said = bench("plan", str(suite), code=2).stderr
    assert "planning imports" in said and "outside its container" in said and not (tmp_path / "ran").exists()


def test_filters_and_exclusions_know_own_methods_by_name(tmp_path: Path) -> None:
    folder = str(toy(tmp_path / "toy"))
    suite = Suite(name="own", version=1, budget="smoke", methods=(folder, "scratch"), tasks=("s3dis-sem",))
    names = {folder: "toy"}
    assert [c.method for c in suite.cells("smoke", "smoke", parse_filters(["method=toy"]), names)] == [folder]
    assert [c.method for c in suite.cells("smoke", "smoke", parse_filters([f"method={folder}"]), names)] == [folder]
    without = suite.model_copy(update={"exclude": ({"method": "toy"},)})
    assert [c.method for c in without.cells("smoke", "smoke", (), names)] == ["scratch"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("synthetic: true", "synthetic: only shipped procedural datasets are synthetic"),
        ("test_scenes_file: mine.txt", "test_scenes_file: names a list that ships"),
    ],
)
def test_fields_that_an_own_dataset_cannot_have(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((OWN_TASK / "dataset.yaml").read_text() + f"\n{line}\n")
    with pytest.raises(WrongUse, match=message):
        parse_data_options([f"{path}=/data"], "--data")


def test_a_task_is_judged_by_a_metric_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((OWN_TASK / "task.yaml").read_text().replace("miou_voxel", "ap50"))
    with pytest.raises(WrongUse, match="a semantic task is judged by miou_voxel or miou_point"):
        find(Task, str(path))


def test_the_page_has_every_name_that_a_stage_may_use(tmp_path: Path) -> None:
    section = (REPOSITORY / "docs/plug-ins.md").read_text().split("## Objects of a stage")[1].split("\n## ")[0]
    names = set(re.findall(r"`context\.(\w+)", section))
    context = StageContext(tmp_path, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]
    public = {name for name in dir(context) if not name.startswith("_")}
    assert names == public - {"open", "root", "place", "started"}
    fields = section.split("| field | meaning |")[1]
    assert re.findall(r"^\| `(\w+)` \|", fields, flags=re.M) == list(Training._fields)
    seen = re.findall(r"`(\w+)`", section.split("adds to the counts of")[1].split(";")[0])
    assert set(seen) < set(Ledger.model_fields)
    (result,) = re.findall(r"`StepResult\(([^)]*)\)`", section)
    assert tuple(result.split(", ")) == StepResult._fields
    for module in re.findall(r"`(pretrain_bench(?:\.\w+)+)`", section):
        assert find_spec(module), module
