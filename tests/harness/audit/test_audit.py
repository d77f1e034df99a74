"""Audits pass on honest runs, and detect exactly those ways of tampering that docs/audit.md lists as detected."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.support import foreign_files
from pretrain_bench.harness.audit import split, static, tables
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.rerun import _compare_metrics
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.store.spec_reader import SharedSpec
from pretrain_bench.harness.store.store import CODE, RECORD, Store, write_json
from tests.conftest import NANO, Bench, bench_command, unboxed
from tests.faults.in_process import run_with
from tests.harness.audit.cheats import section
from tests.harness.audit.conftest import planned_cells
from tests.harness.audit.edits import edit_record, edit_spec, edit_split, folder_of, reseal
from tests.harness.store.bundles import members, repack
from tests.reports.stores import add, stage

DOCS = Path(__file__).parent.parent.parent.parent / "docs/audit.md"


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


@pytest.fixture
def runs(honest: Path, tmp_path: Path) -> Path:
    """A copy for tampering."""
    return Path(shutil.copytree(honest, tmp_path / "runs"))


def audit(bench: Bench, *arguments: str, code: int = 0) -> list[dict[str, str]]:
    return json.loads(bench("audit", *arguments, "--json", code=code).stdout)


def failures(findings: list[dict[str, str]]) -> set[str]:
    return {f["check"] for f in findings if f["verdict"] == "failed"}


# --------------------------------------------------------------------------------------------------------- tampering
# Each edits files as a cheat would; a cheat who knows the hashes calls `reseal` afterwards.


def edit_metric(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r["metrics"].update(miou_voxel_final=0.99))


def swap_predictions(runs: Path) -> None:
    one, two = folder_of(runs, "csc"), folder_of(runs, "scratch")
    name = next((one / "artifacts").rglob("predictions/final/*.npz")).relative_to(one)
    a, b = (one / name).read_bytes(), (two / name).read_bytes()
    assert a != b
    (one / name).write_bytes(b)
    (two / name).write_bytes(a)


def change_seed(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r["cell"].update(pretrain_seed=5))


def drop_run(runs: Path) -> None:
    shutil.rmtree(folder_of(runs, "scratch"))


def hide_attempt(runs: Path) -> None:
    """Delete the first, failed attempt, as if only the second had run."""
    folder = folder_of(runs, "csc")
    edit_record(folder, lambda r: r.update(attempt=2))
    os.rename(folder / "attempts/1", folder / "attempts/2")


def alter_split(runs: Path) -> None:
    """Train on a test room."""

    def change(split: dict) -> None:
        split["train"] = [*split["train"], split["test"][0]]
        split["test"] = split["test"][1:] or split["test"]

    edit_split(folder_of(runs, "csc"), change)


def bigger_budget(runs: Path) -> None:
    def change(spec: dict) -> None:
        spec["limits"]["amount"] *= 10

    edit_spec(folder_of(runs, "csc", "pretrain"), change)


def replace_checkpoint(runs: Path) -> None:
    one, two = folder_of(runs, "csc", "pretrain"), folder_of(runs, "scratch", "pretrain")
    shutil.copyfile(two / "artifacts/backbone.safetensors", one / "artifacts/backbone.safetensors")


def copy_seed(runs: Path) -> None:
    """Present one pre-training as two seeds."""
    one, two = [
        p.parent
        for p in sorted(runs.glob("pretrain/*/record.json"))
        if json.loads(p.read_text())["method"] == "scratch"
    ]
    shutil.copyfile(two / "artifacts/backbone.safetensors", one / "artifacts/backbone.safetensors")
    edit_record(one, lambda r: r.update(artifacts=json.loads((two / "record.json").read_text())["artifacts"]))


def change_contamination(runs: Path) -> None:
    """Claim a pre-training on other rooms."""
    edit_record(folder_of(runs, "csc"), lambda r: r["contamination"].update(places_sha256="1" * 64))


def claim_image(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r.update(executor="docker", image="sha256:" + "1" * 64))


TAMPERING: dict[Callable[[Path], None], tuple[str, str | None]] = {
    edit_metric: ("record and spec parse and match their hashes", "metrics recomputed from predictions"),
    swap_predictions: ("artifacts match their hashes", "metrics recomputed from predictions"),
    change_seed: (
        "record and spec parse and match their hashes",
        "method, task, ratio and seeds match the spec",
    ),
    drop_run: ("no run was removed or inserted", None),
    hide_attempt: ("record and spec parse and match their hashes", "every attempt is kept"),
    alter_split: ("record and spec parse and match their hashes", "split"),
    bigger_budget: ("record and spec parse and match their hashes", "budget is the one that ships"),
    replace_checkpoint: ("artifacts match their hashes", None),
    copy_seed: ("record and spec parse and match their hashes", "seeds give different results"),
    change_contamination: (
        "record and spec parse and match their hashes",
        "contamination matches the specs",
    ),
    claim_image: ("record and spec parse and match their hashes", None),
}
"""Each with the check that detects it unsealed, and the one that detects it resealed (None: only a signature or a rerun does)."""


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


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda f: f.__name__)
def test_plain_tampering_is_found(tamper: Callable[[Path], None], runs: Path, bench: Bench) -> None:
    tamper(runs)
    assert TAMPERING[tamper][0] in failures(audit(bench, "--runs", str(runs), code=1))


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda f: f.__name__)
def test_tampering_by_somebody_who_knows_how(tamper: Callable[[Path], None], runs: Path, bench: Bench) -> None:
    tamper(runs)
    reseal(runs)
    expected = TAMPERING[tamper][1]
    found = failures(audit(bench, "--runs", str(runs), code=1 if expected else 0))
    assert (expected in found) if expected else not found


def test_resealing_alone_is_not_seen(runs: Path, bench: Bench) -> None:
    reseal(runs)
    assert not failures(audit(bench, "--runs", str(runs)))


def tampering_table() -> str:
    """The rows of docs/audit.md, which `python -m tests.harness.audit.cheats` writes."""
    lines = ["| case | plain, found by | resealed, found by |", "|---|---|---|"]
    for tamper, (plain, resealed) in TAMPERING.items():
        lines.append(
            f"| {tamper.__name__.replace('_', ' ')} | {plain} | {resealed or 'only a signature or a re-run'} |"
        )
    return "\n".join(lines)


def test_the_documentation_lists_every_case() -> None:
    assert section(DOCS.read_text(), "tampering") == tampering_table()


def test_pruned_is_distinguished_from_missing(
    runs: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = json.loads(bench("clean", "--keep", "final", "--dry-run", "--runs", str(runs), "--json").stdout)
    assert dry["removed"] and not failures(audit(bench, "--runs", str(runs)))
    bench("clean", "--keep", "none", "--runs", str(runs))
    assert not list(runs.glob("*/*/artifacts/**/*.safetensors"))
    findings = audit(bench, "--runs", str(runs))
    assert not failures(findings)
    assert {f["check"] for f in findings if f["verdict"] == "not checked"} == {
        "artifacts are there", "metrics recomputed from predictions", "profile is the one that ships",
    }  # fmt: skip
    missing = [f["subject"] for f in findings if f["check"] == "artifacts are there"]
    assert missing and len(missing) == len(set(missing)), "one line a run, however many files it had"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    without = audit(bench, "--runs", str(runs))
    assert not (tmp_path / "cache").exists(), "no data are made for what cannot be scored"
    assert "split made again from the rule and the manifest" in {
        f["check"] for f in without if f["verdict"] == "not checked"
    }
    (folder_of(runs, "csc", "pretrain") / "pruned.json").unlink()
    assert "artifacts are there" in failures(audit(bench, "--runs", str(runs), code=1))


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


def test_without_the_data_nothing_is_called_ok(honest: Path, runs: Path, bench: Bench) -> None:
    folder = folder_of(runs, "csc")

    def elsewhere(spec: dict) -> None:
        spec["data"]["dataset"], spec["data"]["synthetic"] = "s3dis", False

    for method in ("csc", "scratch"):
        for path in runs.glob("finetune/*/record.json"):
            if json.loads(path.read_text())["method"] == method:
                edit_spec(path.parent, elsewhere)
                edit_record(path.parent, lambda r: r.update(dataset="s3dis"))
    reseal(runs)
    findings = audit(bench, "--runs", str(runs), code=1)  # the split differs from that of the real S3DIS
    verdicts = {f["verdict"] for f in findings if f["check"] == "metrics recomputed from predictions"}
    assert verdicts == {"not checked"} and folder.parent.is_dir()


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


def test_what_runs_share_is_judged_once_and_a_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may hold 50,000 runs of a few hundred specs."""
    store = Store(tmp_path / "runs")
    for seed in range(3):
        add(store, "csc", 0.5, finetune_seed=seed)
    for record in list(store.records()):
        folder = store.folder(record.kind, record.key)
        write_json(folder / CODE, {"module": "0" * 64})
        (folder / "attempts/1").mkdir(parents=True)
        shutil.copy(folder / RECORD, folder / "attempts/1")
    read, judged = list[Path](), list[object]()
    read_plain, of_test_scenes = foreign_files.read_plain, split._of_test_scenes

    def counted(path: Path, *arguments: object, **options: object) -> bytes:
        read.append(Path(path))
        return read_plain(path, *arguments, **options)  # type: ignore[arg-type]

    for module in (foreign_files, tables, static):
        monkeypatch.setattr(module, "read_plain", counted)
    monkeypatch.setattr(split, "_of_test_scenes", lambda *a: [judged.append(a), *of_test_scenes(*a)][1:])
    tally = Tally()
    runs = static.audit_files(store, tally)
    assert len(runs) == 4 and len(judged) == 1, "three fine-tunings share a spec"
    assert sum(path.name == "pruned.json" for path in read) == 4
    assert len({id(tables.code_list(run)) for run in runs.values()}) == 1, "one list of code in memory"
    assert tally.held["every attempt is kept"] == 8 and not [f for f in tally.findings if "attempt" in f.check]
