"""The main workflow at its smallest size, as a user types it: run, reuse, report, and two commands at once."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.metrics.scorer import SemanticScorer
from pretrain_bench.reports.page.plotly_figures import plotly_source
from tests.conftest import NANO, REPOSITORY, Bench, bench_command, run_records
from tests.nano_runs import artifact_hashes, command, run_whole

FIVE = ["--label-ratio", "50%"]


def test_the_main_job(roots: list[str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs ours and scratch once; each function below checks one aspect of the result or continues from it."""
    finished = run_whole(roots, tmp_path)
    a_run_leaves_records_and_artifacts(finished)
    the_budget_is_equal_in_its_currency(finished)
    outside_and_inside_agree_on_what_was_used(finished)
    the_same_command_again_does_nothing_and_says_so(finished, roots, bench)
    every_run_can_be_shown(finished, bench)
    the_report_shows_the_runs(finished, bench, tmp_path)
    the_fine_tuning_loader_never_sees_test_labels(finished, tmp_path, monkeypatch)


def a_run_leaves_records_and_artifacts(finished: Path) -> None:
    records = {(r["method"], r["stage"]): r for r in run_records(finished)}
    assert set(records) == {
        ("ours", "images"),
        ("ours", "points"),
        ("ours", "finetune"),
        ("scratch", "init"),
        ("scratch", "finetune"),
    }
    assert all(r["outcome"] == "ok" and not r["synthetic"] for r in records.values())
    finetune = records["ours", "finetune"]
    assert {f"miou_voxel_{c}" for c in ("final", "selected", "best")} <= set(finetune["metrics"])
    assert finetune["notes"]["transferred_tensors"] == "372 of 374, final.* dropped"
    assert records["ours", "images"]["notes"]["encoder_initialisation"] == "random"
    assert "no ImageNet weights were given" in records["ours", "images"]["warnings"][0]
    assert {f"predictions/{c}/Area_5__office_1.npz" for c in ("final", "selected", "best")} <= set(
        finetune["artifacts"]
    )
    assert "backbone.safetensors" in records["ours", "points"]["artifacts"]
    assert not list(finished.glob(".partial/[!.]*"))


def the_budget_is_equal_in_its_currency(finished: Path) -> None:
    """Each stage of ours takes half of the total; both fine-tunings take equal steps."""
    steps = {(r["method"], r["stage"]): r["ledger"]["optimizer_steps"] for r in run_records(finished)}
    assert steps["ours", "images"] == steps["ours", "points"] == 4
    assert steps["ours", "finetune"] == steps["scratch", "finetune"] == 4
    assert steps["scratch", "init"] == 0
    ledgers = {(r["method"], r["stage"]): r["ledger"] for r in run_records(finished)}
    assert ledgers["ours", "images"]["images"] == 2 * 2 * 4 and ledgers["ours", "points"]["frames"] == 2 * 4
    assert ledgers["ours", "images"]["labels"] == ledgers["ours", "points"]["labels"] == 0
    assert ledgers["ours", "finetune"]["labels"] > 0 and ledgers["ours", "finetune"]["sparse_flops"] > 0


def outside_and_inside_agree_on_what_was_used(finished: Path) -> None:
    for record in run_records(finished):
        told, seen = record["ledger"], record["measured"]
        assert seen["wall_seconds"] >= told["wall_seconds"]
        assert seen["peak_memory_bytes"] > 100e6 and seen["output_bytes"] > 0


def the_same_command_again_does_nothing_and_says_so(finished: Path, roots: list[str], bench: Bench) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    done = bench(*command(roots, finished))
    assert "nothing to do: every stage was done before" in done.stdout
    assert done.stdout.count("ok (reused)") == 5
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if ".partial" not in str(p)} == {
        p: t for p, t in before.items() if ".partial" not in str(p)
    }


def another_ratio_shares_the_pretraining(finished: Path, roots: list[str], bench: Bench) -> None:
    done = bench(*command(roots, finished, *FIVE, "--json", methods=("ours",)))
    reports = json.loads(done.stdout)
    assert [r["reused"] for r in reports] == [True, True, False]
    assert [(r["title"], r["seed"]) for r in reports[:2]] == [("ours/images", 0), ("ours/points", 0)]
    assert reports[2]["seed"] is None and reports[2]["record"]["cell"]["pretrain_seed"] == 0
    (row,) = re.findall(r"^\| `bench run` \|.*\| (.*) \|$", (REPOSITORY / "docs/json.md").read_text(), flags=re.M)
    assert all(r.keys() == set(re.findall(r"`(\w+)`", row)) for r in reports)
    assert done.stderr == "", "with --json nothing but JSON is printed"


def the_fine_tuning_loader_never_sees_test_labels(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the stage in this process and record which labels are read, and where."""
    from pretrain_bench.harness.contract.stage import StageSpec
    from pretrain_bench.harness.planning.prepared_data import prepared_with_manifest
    from pretrain_bench.methods.context import StageContext
    from pretrain_bench.methods.finetune import semantic, steps

    record = next(r for r in run_records(finished) if (r["method"], r["stage"]) == ("scratch", "finetune"))
    spec = StageSpec.model_validate_json((finished / "finetune" / record["key"] / "spec.json").read_bytes())
    assert spec.data is not None and spec.split is not None
    prepared, _ = prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in/stage.json").write_text(spec.model_dump_json())
    (root / "data").mkdir()
    (root / "data" / spec.data.dataset).symlink_to(prepared)
    (root / "parents").mkdir()
    (parent,) = spec.parents.items()
    (root / "parents" / parent[0]).symlink_to(finished / "pretrain" / parent[1] / "artifacts")
    read: list[str] = []
    original = steps.load_labels
    monkeypatch.setattr(
        steps, "load_labels", lambda view, scene, *more: read.append(scene) or original(view, scene, *more)
    )
    semantic.run(StageContext.open(root))
    assert set(read) == set(spec.split.train)
    assert not set(read) & {*spec.split.test, *spec.split.selection}
    public = [
        n
        for n in vars(SemanticScorer(root / "data" / spec.data.dataset, spec.split.test, 0.2, 13))
        if not n.startswith("_")
    ]
    assert public == ["classes"], "a scorer shows nothing of the labels"


def the_report_shows_the_runs(finished: Path, bench: Bench, tmp_path: Path) -> None:
    done = bench("report", "--runs", str(finished), "--out", "out")
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} >= {"index.html", "table.md", "table.csv", "effects.csv", "effects.json"}
    pictures = {p.with_suffix("") for p in out.rglob("*.png")}
    assert {p.parent.name for p in pictures} > {"figures"}
    assert all({p.with_suffix("") for p in out.rglob(f"*.{kind}")} >= pictures for kind in ("svg", "pdf"))
    table = (out / "table.md").read_text()
    assert (
        "| scratch | none " in table and "| ours    | rgbd-folder " in table and "cannot be tested with this n" in table
    )
    assert "SYNTHETIC" not in table and table.splitlines()[0].split(";")[0] in done.stdout
    page = (out / "index.html").read_text().replace(plotly_source(), "")
    assert not re.search(r"(src|href)=.https?:", page), "the page opens without a network"
    assert "data:image/png;base64," in page
    metrics = {r["method"]: r["metrics"] for r in run_records(finished) if r["kind"] == "finetune"}
    assert f"{100 * metrics['ours']['miou_voxel_final']:.1f}" in table


def every_run_can_be_shown(finished: Path, bench: Bench) -> None:
    listed = bench("show", "--runs", str(finished)).stdout
    record = next(r for r in run_records(finished) if (r["method"], r["stage"]) == ("ours", "finetune"))
    assert record["key"] in listed and len(re.findall(r"^[0-9a-f]{20} ", listed, flags=re.M)) == 5
    assert re.search(rf"{record['key']}  ours -> s3dis-sem at 100% +0/0 +\w+ +s3dis +\d+\.\d miou_voxel", listed)
    one = bench("show", record["key"][:8], "--runs", str(finished)).stdout
    assert "bookcase" in one and "best (selected on the test split)" in one and "372 of 374" in one
    shown = json.loads(bench("show", record["key"], "--runs", str(finished), "--json").stdout)
    assert shown.items() >= record.items() and "bookcase" in shown["classes"]
    assert all(len(line) <= 100 for line in (listed + one).splitlines())


@pytest.mark.slow  # in the fast set, the killed run compares two stores
def test_two_stores_get_the_same_bits(roots: list[str], bench: Bench, tmp_path: Path) -> None:
    finished = run_whole(roots, tmp_path)
    bench(*command(roots, tmp_path / "runs"))
    one, two = artifact_hashes(finished), artifact_hashes(tmp_path / "runs")
    assert one == two and len(one) == 5
    metrics = [{r["key"]: r["metrics"] for r in run_records(p)} for p in (finished, tmp_path / "runs")]
    assert metrics[0] == metrics[1]
    another_ratio_shares_the_pretraining(finished, roots, bench)


@pytest.mark.slow
def test_two_commands_on_one_store_run_each_stage_once(roots: list[str], tmp_path: Path) -> None:
    runs, finished = tmp_path / "runs", run_whole(roots, tmp_path)
    both = [
        subprocess.Popen(
            bench_command(*command(roots, runs, "--json")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    results = [p.communicate(timeout=200) for p in both]
    assert [p.returncode for p in both] == [0, 0], results
    reused = [[r["reused"] for r in json.loads(out)] for out, _ in results]
    assert all(a != b for a, b in zip(*reused, strict=True)), "each stage is run by exactly one of them"
    assert artifact_hashes(runs) == artifact_hashes(finished)


@pytest.mark.slow
def test_imagenet_weights_are_loaded_recorded_and_part_of_the_key(
    roots: list[str], bench: Bench, tmp_path: Path
) -> None:
    import torch

    from pretrain_bench.methods.networks.resunet2d import ResNetEncoder

    weights = tmp_path / "resnet34.pth"
    torch.save({**ResNetEncoder(34).state_dict(), "fc.weight": torch.zeros(1000, 512)}, weights)
    runs = tmp_path / "runs"
    done = bench(*command(roots, runs, "--imagenet-weights", str(weights), "--json", methods=("ours",)))
    images = json.loads(done.stdout)[0]["record"]
    assert images["notes"]["encoder_initialisation"].startswith("imagenet file, ")
    without = json.loads(bench(*command(roots, tmp_path / "without", "--json", methods=("ours",))).stdout)
    assert images["key"] not in {r["record"]["key"] for r in without}
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3)}, weights)
    done = bench(*command(roots, tmp_path / "other", "--imagenet-weights", str(weights), methods=("ours",)), code=2)
    message = done.stderr.strip().splitlines()[-1]
    assert "ImageNet weights: tensor 'conv1.weight' has shape (64, 3, 3, 3), expected (64, 3, 7, 7)" in message
    assert not run_records(tmp_path / "other") and not list((tmp_path / "other").glob(".partial/[!.]*"))


@pytest.mark.slow
def test_without_selection_all_rooms_train_and_the_final_weights_count(
    roots: list[str], bench: Bench, tmp_path: Path
) -> None:
    profile = tmp_path / "whole.yaml"
    profile.write_text(Path(NANO[3]).read_text().replace("name: nano", "name: whole\nselection: none"))
    bench(
        "run", "--method", "scratch", "--task", "s3dis-sem", "--budget", NANO[1], "--profile", str(profile), *roots[:2],
        "--threads", "1",
    )  # fmt: skip
    folder = next((tmp_path / "runs/finetune").iterdir())
    spec, record = (json.loads((folder / name).read_text()) for name in ("spec.json", "record.json"))
    assert spec["selection"] == "none" and len(spec["split"]["train"]) == 6 and spec["split"]["selection"] == []
    names = {name.rpartition("_")[2] for name in record["metrics"]}
    assert names == {"final", "best"} and not [w for w in record["warnings"] if "hold any out" in w]
    bench("report")
    table = (tmp_path / "report/table.md").read_text()
    assert "differences and verdicts of final" in table
    assert re.search(r"\| scratch \| none +\| - +\|", table), "nothing is selected"
