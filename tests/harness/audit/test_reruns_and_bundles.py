"""Audits pass on honest stores and bundles; runs are run again, and changed bundles are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.rerun import _compare_metrics
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.store.spec_reader import SharedSpec
from tests.conftest import NANO, Bench, bench_command, unboxed
from tests.faults.in_process import run_with
from tests.harness.audit.conftest import planned_cells
from tests.harness.audit.edits import folder_of, replace_checkpoint, reseal
from tests.harness.audit.findings import audit, failures
from tests.harness.store.bundles import members, repack
from tests.reports.stores import stage

SMOKE = ("--budget", "smoke", "--profile", NANO[3])


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs, really trained, for slow tests."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    environment = {**os.environ, "BENCH_CACHE": str(cache)}
    for more in (("scratch", "--pretrain-seed", "0", "--pretrain-seed", "1"), ("csc",)):
        command = bench_command(
            "run", "--method", *more, "--task", "s3dis-sem", *SMOKE, "--threads", "1", "--runs", str(runs)
        )
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return runs


@pytest.mark.parametrize("name", ["honest", pytest.param("trained", marks=pytest.mark.slow)])
def test_an_honest_store_passes(name: str, request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> None:
    honest = request.getfixturevalue(name)
    findings = audit(bench, "--runs", str(honest), "--page", str(tmp_path / "audit.html"))
    assert not failures(findings)
    held = {f["check"]: int(f["detail"]) for f in findings if f["verdict"] == "ok"}
    assert held["metrics recomputed from predictions"] == 3 and held["artifacts match their hashes"] > 10
    assert held["equal budgets in fine-tuning"] == 1 and held["chain is intact"] == 1
    page = (tmp_path / "audit.html").read_text()
    assert "metrics recomputed from predictions" in page and "<script" not in page
    text = bench("audit", "--runs", str(honest), "--no-rescore").stdout
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.slow
def test_a_pruned_backbone_is_made_again_where_it_is_needed(runs: Path, bench: Bench) -> None:
    bench("clean", "--keep", "none", "--runs", str(runs))
    more = (
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
        *SMOKE,
        "--runs",
        str(runs),
        "--finetune-seed",
        "7",
    )
    done = json.loads(bench("run", *more, "--json").stdout)
    assert [(r["record"]["kind"], r["reused"], r["record"]["attempt"]) for r in done] == [
        ("pretrain", False, 2), ("finetune", False, 1),
    ]  # fmt: skip
    folder = runs / "pretrain" / done[0]["record"]["key"]
    assert (folder / "artifacts/backbone.safetensors").is_file() and not (folder / "pruned.json").exists()


@pytest.mark.slow
def test_synthetic_data_are_made_again_from_their_seed(honest: Path, bench: Bench, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    findings = audit(bench, "--runs", str(honest))
    held = {f["check"]: int(f["detail"]) for f in findings if f["verdict"] == "ok"}
    assert held["metrics recomputed from predictions"] == 3


@pytest.mark.slow
def test_a_pretraining_run_again_gives_the_same_bits(bench: Bench, tmp_path: Path) -> None:
    """Uses the initial weights of scratch, which need no training."""
    cell = planned_cells()[0]
    run_with(LocalExecutor(), [cell._replace(stages=cell.stages[:1])], tmp_path / "runs")
    findings = audit(bench, "--rerun", cell.stages[0].spec.key[:10])
    assert not failures(findings)
    assert any(f["check"] == "run again" and f["verdict"] == "ok" for f in findings)


@pytest.mark.slow
def test_a_run_again_gives_the_same_bits(trained: Path, bench: Bench) -> None:
    findings = audit(bench, "--rerun-sample", "1", "--runs", str(trained))
    assert not failures(findings)
    assert any(f["check"] == "run again" and f["verdict"] == "ok" for f in findings)
    text = next(f["detail"] for f in findings if f["check"] == "determinism")
    assert "0.000000" in text and "unknown with fewer than 3 seeds" in text


@pytest.mark.slow
def test_a_run_again_finds_what_was_resealed(trained: Path, bench: Bench, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    replace_checkpoint(runs)
    reseal(runs)
    key = folder_of(runs, "csc").name
    findings = audit(bench, "--rerun", key[:10], "--runs", str(runs), code=1)
    failed = [f for f in findings if f["verdict"] == "failed"]
    assert any("backbone.safetensors differs although numerics are equal" in f["detail"] for f in failed)


def test_where_the_first_difference_is(honest: Path, tmp_path: Path) -> None:
    from pretrain_bench.harness.audit.rerun import first_difference

    one = folder_of(honest, "csc", "pretrain")
    assert first_difference(one, one) is None
    lines = (one / "events.jsonl").read_text().splitlines()
    steps = [i for i, line in enumerate(lines) if '"event":"step"' in line]
    event = json.loads(lines[steps[6]])
    lines[steps[6]] = json.dumps(event | {"loss": event["loss"] + 1e-9})
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    assert first_difference(one, tmp_path) == event["step"] == 42


@pytest.mark.parametrize(
    ("task", "metric"), [("s3dis-sem", "miou_voxel"), ("s3dis-inst", "ap50"), ("sunrgbd-det", "map50")]
)
def test_a_run_again_on_other_arithmetic_is_judged_by_the_headline_metric(task: str, metric: str) -> None:
    """The spread over seeds is that of the same metric: mIoU is not informative about the AP of instances or boxes."""

    def run_of(seed: int, **metrics: float) -> AuditedRun:
        cell = Cell(method="csc", pretrain_dataset="scannet", task=task, pretrain_seed=seed, budget="b", profile="p")
        others = {"miou_voxel_final": 0.5, "ap25_final": 0.5, "accuracy_voxel_final": 0.1 * seed}
        record = Record.model_construct(
            key=f"k{seed}", kind="finetune", cell=cell, outcome=Outcome.ok, metrics={**others, **metrics}
        )
        spec = stage("finetune", "csc", 0, task=task, headline_metric=metric)
        return AuditedRun(Path(), record, spec, SharedSpec(spec))

    runs = {f"k{seed}": run_of(seed, **{f"{metric}_final": 0.4 + 0.01 * seed}) for seed in range(3)}
    for gap, verdict in ((0.02, "ok"), (0.05, "failed")):
        tally = Tally()
        again = run_of(0, **{f"{metric}_final": 0.4 + gap, "accuracy_voxel_final": 0.9}).record
        _compare_metrics(runs["k0"], again, runs, tally, "")
        (finding,) = tally.all()
        assert finding.verdict == verdict
    assert f"{metric}_final differs by 0.0500; allowed: 3 x the standard deviation 0.0100" in finding.detail


# ------------------------------------------------------------------------------------------------------------ bundles


@pytest.fixture(scope="module")
def packed(honest: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "out.tar.zst"
    command = bench_command("audit", "--runs", str(honest), "--bundle", str(target), "--anonymous")
    subprocess.run(command, env={**os.environ, "BENCH_CACHE": str(cache)}, check=True, capture_output=True)
    return target


def test_what_an_audit_of_a_bundle_cannot_do_is_refused(packed: Path, bench: Bench) -> None:
    for flags, words in (
        (("--rerun", "1"), "--rerun: not possible for a bundle"),
        (("--rerun", "1", "--rerun-sample", "2"), "--rerun, --rerun-sample: not possible for a bundle"),
        (("--bundle", "b.tar.zst"), "--bundle: a bundle is packed from a folder of runs"),
        (("--anonymous",), "--anonymous needs a bundle to pack"),
    ):
        assert words in bench("audit", str(packed), *flags, code=2).stderr
        assert words in bench("audit", "--runs", str(packed), *flags, code=2).stderr


def test_a_bundle_passes_on_another_machine(
    packed: Path, honest: Path, bench: Bench, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    findings = audit(bench, str(packed), "--no-rescore")
    assert not failures(findings)
    held = {f["check"]: f["detail"] for f in audit(bench, str(packed)) if f["verdict"] == "ok"}
    assert held["metrics recomputed from counts"] == "3" == held["metrics recomputed from predictions"]
    assert packed.stat().st_size < 2 << 20
    names = members(packed)
    assert not any(n.endswith(".safetensors") for n in names) and any("predictions/final" in n for n in names)
    record = json.loads(names[next(n for n in names if n.endswith("/record.json"))])
    original = json.loads((honest / record["kind"] / record["key"] / "record.json").read_text())
    assert record["provenance"]["machine"] != original["provenance"]["machine"]
    assert record["provenance"]["git_commit"] != original["provenance"]["git_commit"]


def test_a_plan_knows_what_is_done_in_a_bundle(packed: Path, honest: Path, bench: Bench, tmp_path: Path) -> None:
    suite = tmp_path / "honest.yaml"
    suite.write_text(
        f"name: honest\nversion: 1\nbudget: smoke\nprofile: {NANO[3]}\nmethods: [scratch, csc]\ntasks: [s3dis-sem]\n"
    )
    plans = [json.loads(bench("plan", str(suite), "--runs", str(runs), "--json").stdout) for runs in (packed, honest)]
    assert plans[0] == plans[1]
    assert Counter(s["state"] for s in plans[0]["stages"])["done"] >= 2


def test_counts_go_as_far_as_the_predictions_that_were_kept(runs: Path, bench: Bench, tmp_path: Path) -> None:
    bench("clean", "--keep", "final", "--runs", str(runs))
    bench("audit", "--runs", str(runs), "--bundle", str(tmp_path / "kept.tar.zst"), "--no-rescore")
    findings = audit(bench, str(tmp_path / "kept.tar.zst"))
    check = [f for f in findings if f["check"] == "metrics recomputed from counts"]
    assert {f["verdict"]: f["detail"] for f in check}["ok"] == "3"
    assert {f["detail"] for f in check if f["verdict"] == "not checked"} == {
        f"the bundle has no counts of the {checkpoint} checkpoint" for checkpoint in ("best", "selected")
    }
    assert not failures(findings)


def test_a_changed_bundle_is_found(packed: Path, bench: Bench, tmp_path: Path) -> None:
    files = members(packed)
    name = next(n for n in files if n.endswith("counts.json"))
    changed = repack(tmp_path / "changed.tar.zst", {**files, name: files[name].replace(b"1", b"2")})
    found = failures(audit(bench, str(changed), "--no-rescore", code=1))
    assert "bundle holds what it lists" in found
    less = {n: c for n, c in files.items() if not n.startswith("finetune/")}
    found = failures(audit(bench, str(repack(tmp_path / "less.tar.zst", less)), "--no-rescore", code=1))
    assert {"bundle holds what it lists", "Merkle root over the records", "no run was removed or inserted"} <= found


def test_hostile_archives_are_refused(packed: Path, bench: Bench, tmp_path: Path) -> None:
    outside = tarfile.TarInfo("../outside")
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device")
    device.type = tarfile.CHRTYPE
    for entry in (outside, link, device):
        archive = repack(tmp_path / "bad.tar.zst", members(packed), [entry])
        assert "bad.tar.zst: " in bench("audit", str(archive), code=2).stderr
        assert not (tmp_path / "outside").exists() and not (tmp_path.parent / "outside").exists()
    bomb = repack(tmp_path / "bomb.tar.zst", {"zeros": bytes(100 << 20)})
    assert bomb.stat().st_size < 1 << 20
    assert "unpacks to more than" in bench("audit", str(bomb), code=2).stderr
    (tmp_path / "half.tar.zst").write_bytes(packed.read_bytes()[:5000])
    assert "cannot be unpacked" in bench("audit", str(tmp_path / "half.tar.zst"), code=2).stderr
    (tmp_path / "empty.tar.zst").write_bytes(b"")
    bench("audit", str(tmp_path / "empty.tar.zst"), code=2)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (OpenSSH), which is not installed")
def test_a_signed_bundle(honest: Path, bench: Bench, tmp_path: Path) -> None:
    for who in ("me", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / who], check=True)
    (tmp_path / "signers").write_text(
        f"me {(tmp_path / 'me.pub').read_text()}other {(tmp_path / 'other.pub').read_text()}"
    )
    target = tmp_path / "signed.tar.zst"
    bench("audit", "--runs", str(honest), "--bundle", str(target), "--sign", str(tmp_path / "me"), "--no-rescore")
    who = ("--signers", str(tmp_path / "signers"), "--signer")
    held = {f["check"] for f in audit(bench, str(target), *who, "me", "--no-rescore") if f["verdict"] == "ok"}
    assert "signature" in held
    assert "signature" in failures(audit(bench, str(target), *who, "other", "--no-rescore", code=1))
    files = members(target)
    content = json.loads(files["bundle.json"]) | {"records": 99}
    forged = repack(tmp_path / "forged.tar.zst", {**files, "bundle.json": json.dumps(content).encode()})
    assert "signature" in failures(audit(bench, str(forged), *who, "me", "--no-rescore", code=1))
    unsigned = repack(tmp_path / "unsigned.tar.zst", {n: c for n, c in files.items() if not n.endswith(".sig")})
    assert "signature" in failures(audit(bench, str(unsigned), *who, "me", "--no-rescore", code=1))


def test_wrong_use(honest: Path, bench: Bench, tmp_path: Path) -> None:
    assert "no such file" in bench("audit", "nothing.tar.zst", code=2).stderr
    assert "no such folder of runs" in bench("audit", "--runs", "nowhere", code=2).stderr
    assert "no run in" in bench("audit", "zzz", "--runs", str(honest), code=2).stderr
    assert "name runs with --rerun KEY" in bench("audit", "--times", "2", "--runs", str(honest), code=2).stderr
    assert "--rerun-sample N draws runs" in bench("audit", "--rerun", "2", "--runs", str(honest), code=2).stderr
    assert "no run in" in bench("audit", "--rerun", "zzzz", "--runs", str(honest), code=2).stderr
    refused = bench("clean", "--keep", "some", "--runs", str(honest), code=2).stderr
    assert "'some' is not one of 'none', 'final'" in unboxed(refused)
