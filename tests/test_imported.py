"""The user's checkpoints as methods: named, planned, converted and recorded; and one command from files to a report."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

import pretrain_bench as pb
from pretrain_bench.api.checkpoints import _check_frozen
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.probes import DecoderProbe, LinearProbe
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.executors import docker
from pretrain_bench.harness.executors.docker import DockerExecutor
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.imported_method import check_seeds, import_request, with_stated_scenes
from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage, pretrain_stages
from pretrain_bench.harness.running.layout import lay_out, with_users_paths
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.imported.command import Check, Import
from pretrain_bench.methods.imported.convert import run as convert
from pretrain_bench.methods.imported.matching import Request
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from tests.conftest import NANO, Bench, run_records

NARROW = NetworkSettings(width=0.125)
Weights = dict[str, torch.Tensor]


def weights_of(seed: int) -> Weights:
    state = seeded_backbone(20, NARROW, 0.02, "torch", seed).state_dict()
    return {f"module.{name}": value for name, value in state.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pth, b.pth and c.pth of a MinkowskiEngine network, each from a different seed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate("abc"):
        torch.save({"state_dict": weights_of(seed), "epoch": 1}, folder / f"{name}.pth")
    return folder


def stage_of(text: str, seed: int = 0, **overrides: Any) -> PlannedStage:
    method = find(Method, text)
    methods = with_stated_scenes({text: method}, overrides.get("pretrained_on", ()))
    specs = CellSpecs(methods[text], find(Task, "s3dis-sem"), find(Budget, NANO[1]), find(Profile, NANO[3]))
    return pretrain_stages(specs, None, seed, Machine(1, "torch", "cpu"))[-1]


def test_files_are_the_seeds_of_a_method_with_a_name_of_the_users(files: Path) -> None:
    text = f"mine=csc:{files}/a.pth,{files}/b.pth"
    method = find(Method, text)
    assert (method.name, method.card.origin, method.card.group) == ("mine", "imported", "imported")
    assert [f.path.name for f in method.checkpoints] == ["a.pth", "b.pth"]
    assert {f.origin for f in method.checkpoints} == {"csc"}
    suite = pb.cells([text, "scratch"], "s3dis-sem", budget="smoke")
    assert suite.pretrain_seeds == (0, 1), "one seed for each file, for scratch too"
    assert pb.cells([text], "s3dis-sem", budget="smoke", pretrain_seeds=[1]).pretrain_seeds == (1,)
    resolved = resolve_suite(suite, [], RunOverrides(device="cpu"))
    assert resolved.notices[0].startswith("Stanford"), "every file has its seed"
    cells = [(c.method, c.pretrain_seed) for c in resolved._planner({}).distinct(resolved.cells())]
    assert cells == [("mine", 0), ("mine", 1), ("scratch", 0), ("scratch", 1)]


def test_one_file_is_one_pretraining_however_many_seeds_are_asked_for(files: Path) -> None:
    text = f"mine={files}/a.pth"
    suite = pb.cells([text, "scratch"], "s3dis-sem", budget="smoke", pretrain_seeds=[0, 1, 2])
    resolved = resolve_suite(suite, [], RunOverrides(device="cpu"))
    assert (
        resolved.notices[0] == "mine: one file is one pre-training (seed 0), so there is no variance over pre-trainings"
    )
    cells = [(c.method, c.pretrain_seed) for c in resolved._planner({}).distinct(resolved.cells())]
    assert cells == [("mine", 0), ("scratch", 0), ("scratch", 1), ("scratch", 2)]
    with pytest.raises(
        WrongUse, match=r"'mine' has 1 file\(s\), for pre-training seeds 0 to 0, but the requested seeds .* 3, 4"
    ):
        check_seeds([find(Method, text)], [3, 4])
    two = find(Method, f"two={files}/a.pth,{files}/b.pth")
    assert check_seeds([two], [0]) == ["two: only 1 of its 2 files are used; add --pretrain-seed 1"]


def test_what_does_not_name_a_checkpoint_is_refused(files: Path, tmp_path: Path) -> None:
    assert import_request("./lr=0.1/method") is None and import_request("csc") is None
    shutil.copy(files / "a.pth", tmp_path / "copy.pth")
    for text, why in (
        (f"csc={files}/a.pth", "'csc' is a method that ships; choose another name"),
        (f"scratch,mine={files}/a.pth", "checkpoints need an option of their own: --method scratch --method mine=..."),
        (f"Mine={files}/a.pth", "name: String should match pattern"),
        (f"mine=mars:{files}/a.pth", "'mars' is neither a file nor an origin; origins are pointcontrast, csc"),
        (f"mine={files}/a.pth,", "an empty file name; expected NAME="),
        (f"mine={files}/none.pth", r"none\.pth: cannot be read: No such file"),
        (f"mine={files}/a.pth,{tmp_path}/copy.pth", "has the same content as .*a false second"),
        (f"{files}/a.pth", r"give a checkpoint as NAME=\[ORIGIN:\]FILE"),
    ):
        with pytest.raises(WrongUse, match=why):
            find(Method, text)
    suite = pb.cells("imported", "s3dis-sem", budget="smoke")
    with pytest.raises(WrongUse, match="'imported' needs checkpoints and a name of yours: --method NAME="):
        resolve_suite(suite, [], RunOverrides(device="cpu"))
    with pytest.raises(WrongUse, match="'mine' is an imported checkpoint, which is not trained here"):
        pb.check_method(f"mine={files}/a.pth")


def test_the_key_follows_content_and_origin_and_no_path(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "a.pth", tmp_path / "other.pth")
    first = stage_of(f"mine=csc:{files}/a.pth")
    assert stage_of(f"mine=csc:{tmp_path}/other.pth").spec.key == first.spec.key
    assert stage_of(f"mine=csc:{files}/b.pth,{files}/a.pth", 0).spec.key != first.spec.key
    assert stage_of(f"mine=minkowski-0.5:{files}/a.pth").spec.key != first.spec.key
    assert str(files) not in json.dumps(first.spec.model_dump(mode="json"))
    scratch = stage_of("scratch").spec
    assert "checkpoint" not in scratch.model_dump(mode="json"), "keys of other stages are as they were"
    assert not first.own_code and first.spec.limits.amount == 0


def test_a_pointcontrast_file_saw_no_colours(files: Path) -> None:
    assert find(Method, f"mine=pointcontrast:{files}/a.pth").input == "geometry"
    assert find(Method, f"mine=csc:{files}/a.pth").input == find(Method, f"mine={files}/a.pth").input == "colour"


def test_containers_run_it_in_the_image_of_the_method_that_ships(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(docker, "require", lambda client, image: asked.append(image))
    executor = DockerExecutor.__new__(DockerExecutor)
    executor.client, executor.own = None, {}  # type: ignore[assignment]
    planned = stage_of(f"mine=csc:{files}/a.pth")
    executor._image_of(planned.spec)
    executor.check_images([planned.method])
    assert asked == ["imported", "imported", "task"]


def converted(planned: PlannedStage, root: Path) -> StageContext:
    root.mkdir(parents=True, exist_ok=True)
    lay_out(root, planned, {}, None)
    context = StageContext.open(root)
    convert(context)
    return context


def test_the_stage_hands_the_files_backbone_on(files: Path, tmp_path: Path) -> None:
    context = converted(stage_of(f"mine=minkowski-0.5:{files}/a.pth,{files}/b.pth", 1), tmp_path / "root")
    backbone = load_file(context.artifacts / "backbone.safetensors")
    expected = weights_of(1)
    assert len(backbone) == 372 and all(torch.equal(v, expected[f"module.{n}"]) for n, v in backbone.items())
    assert context.notes == {
        "transferred_tensors": "372 of 372, from state_dict.module.", "kernel_order": "minkowski-0.5; 0 kernels reordered",
    }  # fmt: skip
    hybrid = converted(stage_of(f"mine=pointcontrast:{files}/a.pth"), tmp_path / "hybrid")
    assert hybrid.notes["kernel_order"] == "minkowski-0.4; 46 kernels reordered"


def test_a_file_that_changed_or_does_not_fit_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(weights_of(0), path)
    planned = stage_of(f"mine={path}")
    root = tmp_path / "partial" / "root"
    with pytest.raises(WrongUse) as refused:
        converted(planned, root)
    message = with_users_paths(str(refused.value), root, planned, {}, None)
    assert message.startswith(f"{path}: its tensors fit, but do not show the order of its kernels")
    torch.save(weights_of(1), path)
    with pytest.raises(WrongUse, match=r"a\.pth: changed since this command started; run it again"):
        lay_out(root, planned, {}, None)


def test_a_part_that_the_user_accepted_is_completed_from_the_seed(tmp_path: Path) -> None:
    part = {n: v for n, v in weights_of(0).items() if "block8" not in n}
    torch.save(part, tmp_path / "part.pth")
    request = Request(path=tmp_path / "part.pth", network=NARROW, origin="minkowski-0.5", partial=True)
    report = Import(request=request, out=tmp_path / "part.safetensors").run()
    assert report["transferred"] == 342
    contexts = [converted(stage_of(f"mine={tmp_path}/part.safetensors"), tmp_path / name) for name in ("one", "two")]
    (one, two) = (load_file(c.artifacts / "backbone.safetensors") for c in contexts)
    assert len(one) == 372 and all(torch.equal(v, two[n]) for n, v in one.items())
    assert all(torch.equal(one[n.removeprefix("module.")], v) for n, v in part.items() if "final" not in n)
    assert contexts[0].notes["transferred_tensors"].startswith("342 of 372")
    assert "342 of 372 tensors come from the file" in (tmp_path / "one/out/events.jsonl").read_text()


@pytest.mark.parametrize(
    ("lost", "probe", "words"),
    [
        ("block8", LinearProbe(), "judges the whole backbone.* use --protocol decoder with `start: reset`, --protocol finetune"),
        ("block8", DecoderProbe(start="kept"), "protocol 'decoder kept' judges the whole backbone, but 25 of its tensors"),
        ("block2", DecoderProbe(), "protocol 'decoder' judges its encoder.*first block2.*; use --protocol finetune, or a file"),
        ("block8", DecoderProbe(), None),
        ("block2", None, None),
        (None, LinearProbe(), None),
    ],
)  # fmt: skip
def test_a_probe_of_random_tensors_is_refused(
    tmp_path: Path, lost: str | None, probe: LinearProbe | DecoderProbe | None, words: str | None
) -> None:
    torch.save({n: v for n, v in weights_of(0).items() if lost is None or lost not in n}, tmp_path / "part.pth")
    request = Request(path=tmp_path / "part.pth", network=NARROW, origin="minkowski-0.5", partial=True)
    (lacking,) = cast("list[list[str]]", Check(requests=(request,)).run()["drawn"])
    with pytest.raises(WrongUse, match=f"^mine: .*{words}") if words else nullcontext():
        _check_frozen("mine", probe, lacking)


def test_stated_scenes_are_in_spec_and_record(files: Path, tmp_path: Path) -> None:
    text = f"mine={files}/a.pth"
    (tmp_path / "scenes.txt").write_text("scene0001_00\n\nscene0000_00\nscene0001_00\n")
    before, after = stage_of(text), stage_of(text, pretrained_on=[f"mine={tmp_path}/scenes.txt"])
    assert before.spec.pretrained_on is None and after.spec.pretrained_on == ("scene0001_00", "scene0000_00")
    assert before.imported is not None and before.imported.pretrained_on is None
    assert before.imported.facts["contaminated"].startswith("unknown") and before.imported.file == "a.pth"
    assert after.imported is not None and after.imported.pretrained_on == ("scene0001_00", "scene0000_00")
    assert "contaminated" not in after.imported.facts
    for option in (f"{tmp_path}/none.txt", f"other={tmp_path}/scenes.txt"):
        with pytest.raises(WrongUse, match=r"--pretrained-on .*: expected \[NAME=\]FILE .*; imported methods: mine"):
            stage_of(text, pretrained_on=[option])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(WrongUse, match="names no scene; expected one per line"):
        stage_of(text, pretrained_on=[str(tmp_path / "empty.txt")])


@pytest.mark.slow
def test_one_command_from_files_to_a_report_and_back(files: Path, tmp_path: Path, bench: Bench, undrawn: None) -> None:
    command = [
        "run",
        "--method",
        f"mine=minkowski-0.5:{files}/a.pth,{files}/b.pth",
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
    ]
    users_mistakes_are_refused_before_anything_is_prepared(command, files, bench, tmp_path)
    (tmp_path / "scenes.txt").write_text("scene0000_00\n")
    bench(*command, *NANO, "--threads", "1", "--pretrained-on", "scenes.txt")
    records = run_records(tmp_path / "runs")
    imports = {r["imported"]["file"]: r for r in records if r.get("imported")}
    assert set(imports) == {"a.pth", "b.pth"} and len(records) == 8
    assert {r["imported"]["budget"] for r in imports.values()} == {"unknown"}
    assert [r["imported"]["pretrained_on"] for r in imports.values()] == [["scene0000_00"]] * 2
    assert all(r["outcome"] == "ok" and r["method"] == "mine" and r["stage"] == "convert" for r in imports.values())
    key = imports["a.pth"]["key"]
    shown = bench("show", key).stdout
    assert (
        "pre-training budget  unknown" in shown
        and "1, stated by the user" in shown
        and imports["a.pth"]["imported"]["sha256"] in shown
    )
    audit = bench("audit").stdout
    assert "failed" not in audit and "mine: imported, so the budget of its" in " ".join(audit.split())
    text = " ".join(bench("report").stdout.split())
    assert "NOT EQUAL in pre-training: mine (imported, budget unknown)" in text
    finetuned = next(r["key"] for r in records if r["kind"] == "finetune" and r["method"] == "mine")
    a_pretraining_is_exported_and_imported_again(key, finetuned, bench, tmp_path)
    again = " ".join(bench("audit", "--rerun", finetuned).stdout.split())
    assert "not checked: run again" in again and "imports the user's file of sha256" in again


def users_mistakes_are_refused_before_anything_is_prepared(
    command: list[str], files: Path, bench: Bench, tmp_path: Path
) -> None:
    error = bench("run", "--method", f"mine={files}/a.pth", *command[3:], *NANO, code=2).stderr
    assert f"error: {files}/a.pth: its tensors fit, but do not show the order of its kernels" in error
    error = bench(*command, "--budget", "smoke", code=2).stderr
    assert (
        "The network of the file has width 0.125 (here 0.25): use a profile of your own that extends this one" in error
    )
    torch.save({n: v for n, v in weights_of(0).items() if "block8" not in n}, tmp_path / "part.pth")
    Import(
        request=Request(path=tmp_path / "part.pth", network=NARROW, origin="minkowski-0.5", partial=True),
        out=tmp_path / "part.safetensors",
    ).run()
    linear = ("--task", "s3dis-sem", "--protocol", "linear", *NANO)
    error = bench("run", "--method", f"mine={tmp_path}/part.safetensors", *linear, code=2).stderr
    assert "protocol 'linear' judges the whole backbone, but 25 of its tensors are not in the file" in error
    assert not (tmp_path / "runs").exists(), "refused before anything is prepared"


def a_pretraining_is_exported_and_imported_again(key: str, finetuned: str, bench: Bench, tmp_path: Path) -> None:
    bench("methods", "export", key, "--format", "minkowski-0.4", "--out", "out/old.pth")
    bench("methods", "export", key[:8], "--format", "spconv", "--out", "spconv.pth")
    back = bench(
        "methods", "import-checkpoint", "out/old.pth", "--profile", NANO[3], "--out", "back.safetensors"
    ).stdout
    assert "372 of 372 tensors" in back and "in the order of minkowski-0.4, 46 reordered" in back
    one, two = load_file(tmp_path / "back.safetensors"), weights_of(0)
    assert len(one) == 372 and all(torch.equal(v, two[f"module.{n}"]) for n, v in one.items())
    error = bench("methods", "export", key, "--format", "pointcept", "--out", "p.pth", code=2).stderr
    assert "40 of 372 tensors have no counterpart of their shape in Pointcept's SpUNet" in error
    exported = bench("methods", "export", key, "--format", "pointcept", "--out", "p.pth", "--partial").stdout
    assert "* left out: conv0p1s1.kernel" in exported and (tmp_path / "p.pth").is_file()
    error = bench("methods", "export", finetuned, "--format", "spconv", "--out", "x", code=2).stderr
    assert "is a fine-tuning, which keeps predictions only; export its pre-training" in error
    error = bench("methods", "export", key, "--format", "onnx", "--out", "x", code=2).stderr
    assert "--format 'onnx': expected one of minkowski-0.5, minkowski-0.4, spconv, pointcept" in error
