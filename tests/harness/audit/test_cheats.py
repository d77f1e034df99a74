"""Every cheat listed in docs/audit.md is detected by the check named there, or by no check that reads only the store."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.specs.checkpoint import Checkpoint
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.audit import code, registered, seeds, static
from pretrain_bench.harness.audit.audit import AuditOptions, audit
from pretrain_bench.harness.audit.findings import Finding, Tally, Verdict
from pretrain_bench.harness.audit.pack import PackOptions, pack
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, read_runs
from pretrain_bench.harness.contract.events import End, EventWriter, Start, Warn, broken_line, read_events
from pretrain_bench.harness.executors.base import Execution, StageLaunch
from pretrain_bench.harness.planning.registration import register
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import Store, json_bytes
from tests.conftest import NANO, Bench, run_here
from tests.faults.in_process import SleepingInProcess, run_with
from tests.harness.audit.cheats import (
    CHEATS,
    DOCS,
    Cheat,
    section,
    table,
)
from tests.harness.audit.conftest import planned_cells
from tests.harness.audit.damage import drop_the_worst_seed, edit_test_labels, one_pretraining_twice, starve_scratch
from tests.harness.audit.edits import folder_of, reseal
from tests.harness.store.bundles import repack, unpacked
from tests.harness.store.test_store import finish, spec

FAST = (starve_scratch, edit_test_labels, one_pretraining_twice)
"""In the fast set: one about a split, one about data, one about seeds; the many others are slow."""


@pytest.fixture(scope="module")
def bundle(honest: Path, module_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "honest.tar.zst"
    pack(read_runs(Store(honest), Tally()), honest, target, PackOptions(), lambda line: None)
    return target


@pytest.fixture(scope="module")
def known(honest: Path, bundle: Path, module_cache: None) -> set[tuple[str, str]]:
    """Check and verdict of all findings of an audit of the honest store and bundle."""
    return {(f.check, f.verdict) for path in (honest, bundle) for f in findings_of(path) if f.verdict != "ok"}


def findings_of(path: Path, **options: object) -> list[Finding]:
    return audit(path, AuditOptions(**options), Silent()).tally.all()  # type: ignore[arg-type]


def damaged(cheat: Cheat, honest: Path, bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store or bundle after a cheat, resealed if the cheat reseals."""
    if cheat.where == "bundle":
        files = unpacked(bundle, folder / "unpacked")
        cheat.damage(files)
        contents = json.loads(files["bundle.json"])
        contents["files"] = {n: hashlib.sha256(files[n]).hexdigest() for n in contents["files"]}
        return repack(folder / "bundle.tar.zst", {**files, "bundle.json": json_bytes(contents)})
    runs = Path(shutil.copytree(honest, folder / "runs"))
    if cheat.where == "cache":
        # Other tests may have prepared the same scenes from another folder.
        prepared = next(p for p in (cache_folder() / "prepared").glob("synth-s3dis-*/") if _is_behind(p, honest))
        shutil.copytree(prepared, folder / "cache/prepared" / prepared.name)
        monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
        cheat.damage(folder / "cache/prepared")
    else:
        cheat.damage(runs)
    if cheat.resealed:
        reseal(runs)
    return runs


def _is_behind(prepared: Path, runs: Path) -> bool:
    from pretrain_bench.benchmarks.datasets.layout import MANIFEST, read_manifest

    spec = json.loads(next(runs.glob("finetune/*/spec.json")).read_text())
    return (prepared / MANIFEST).is_file() and read_manifest(prepared).sha256 == spec["data"]["manifest_sha256"]


def name(cheat: Cheat) -> str:
    return f"{cheat.damage.__name__}-{'resealed' if cheat.resealed else 'plain'}"


@pytest.mark.parametrize(
    "cheat", [pytest.param(c, id=name(c), marks=[] if c.damage in FAST else [pytest.mark.slow]) for c in CHEATS]
)
def test_a_cheat(
    cheat: Cheat,
    honest: Path,
    bundle: Path,
    known: set[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = damaged(cheat, honest, bundle, tmp_path, monkeypatch)
    verdicts = {(f.check, f.verdict) for f in findings_of(path)} - known
    if cheat.found_by is None:
        assert "failed" not in {verdict for _, verdict in verdicts}, "it is found: say so in the table"
    else:
        assert verdicts & {(cheat.found_by, v) for v in cheat.verdicts}, sorted(verdicts)


def test_the_honest_store_and_bundle_pass(known: set[tuple[str, str]]) -> None:
    assert "failed" not in {verdict for _, verdict in known}, known


def test_the_documentation_holds_the_table() -> None:
    """`python -m tests.harness.audit.cheats` writes it."""
    assert section(DOCS.read_text(), "cheats") == table().strip()


def test_a_dropped_seed_is_named_by_the_registration(honest: Path, tmp_path: Path, module_cache: None) -> None:
    plan, runs = tmp_path / "plan.json", Path(shutil.copytree(honest, tmp_path / "runs"))
    registration = register(plan, ("honest", 1), planned_cells(), None)
    assert len(registration.cells) == 3 and register(plan, ("honest", 1), planned_cells(), None) == registration
    held = {f.check: f.detail for f in findings_of(runs, registered=plan) if f.verdict == "ok"}
    assert held[registered.PRESENT] == "3"
    drop_the_worst_seed(runs)
    reseal(runs)
    absent = [f for f in findings_of(runs, registered=plan) if f.verdict == "failed"]
    assert [f.check for f in absent] == [registered.PRESENT] and "scratch -> s3dis-sem at 100%" in absent[0].subject


@pytest.mark.slow
def test_code_of_a_commit(module_cache: None) -> None:
    """The code digests of this checkout's last commit, computed by its own code."""
    head = code._head()
    if head is None:
        pytest.skip("needs a git checkout of the project, which this copy is not")
    stage = ("pretrain", "scratch", "init")
    digests = code.digests_at(head, (stage,))
    assert digests is not None and len(digests[stage] or "") == 64
    assert code.digests_at("1" * 40, (stage,)) is None


def test_runs_that_end_during_an_audit_are_left_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run ends after the chain was read, one after the runs were read, one is replaced by a second attempt during its check."""
    store = Store(tmp_path)
    finish(store, spec(0))
    read_all, check_one = static.read_runs, static.check_account

    def read_late(*arguments: Any) -> Runs:
        finish(store, spec(1))
        runs = read_all(*arguments)
        finish(store, spec(2))
        return runs

    def replace(run: AuditedRun, runs: Runs, tally: Tally) -> None:
        check_one(run, runs, tally)
        finish(store, spec(0), attempt=2)

    monkeypatch.setattr(static, "read_runs", read_late)
    monkeypatch.setattr(static, "check_account", replace)
    tally = Tally()
    static.audit_files(store, tally)
    # These runs name a clean commit, but no code digest.
    assert {f.check for f in tally.findings if f.verdict == "failed"} <= {code.KNOWN}
    late = [f.subject for f in tally.findings if f.check == static.UNDER_WAY]
    assert late == [f"pretrain/{spec(1).key}", f"pretrain/{spec(0).key}"]


def test_clean_writes_prunings_into_the_chain(honest: Path, tmp_path: Path, module_cache: None) -> None:
    runs = Path(shutil.copytree(honest, tmp_path / "runs"))
    pb.clean(runs, keep="none")
    links = chain.read(runs)
    assert links is not None and [link.outcome for link in links.links].count(chain.PRUNED) == 6
    assert static.PRUNINGS in {f.check for f in findings_of(runs) if f.verdict == "ok"}


@pytest.mark.parametrize("when", ["before it starts", "before it is scored"])
def test_labels_that_were_edited_stop_a_run(
    when: str, tmp_path: Path, module_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_SLEEP", "0.01")
    cell = planned_cells()[0]
    data = cell.stages[-1].data
    assert data is not None
    copy = Path(shutil.copytree(data.folder, tmp_path / "prepared" / data.folder.name))
    stages = tuple(s._replace(data=data._replace(folder=copy)) if s.data is data else s for s in cell.stages)

    class Editing(SleepingInProcess):
        """An executor that edits the labels during the fine-tuning."""

        def run(self, launch: StageLaunch) -> Execution:
            done = super().run(launch)
            if launch.spec.kind == "finetune":
                edit_test_labels(copy.parent)
            return done

    if when == "before it starts":
        edit_test_labels(copy.parent)
    with pytest.raises(DataError, match="labelled/Area_5.*its content has changed"):
        run_with(
            Editing() if when == "before it is scored" else SleepingInProcess(),
            [cell._replace(stages=stages)],
            tmp_path,
        )
    assert not list(tmp_path.glob("finetune/*/record.json"))


def test_an_edited_event_is_named_by_its_line(honest: Path, tmp_path: Path) -> None:
    target = tmp_path / "events.jsonl"
    lines = (folder_of(honest, "csc") / "events.jsonl").read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(lines))
    assert broken_line(target) is None
    target.write_bytes(b"".join([*lines[:3], lines[3].replace(b'"loss":1', b'"loss":2'), *lines[4:]]))
    assert broken_line(target) == 5
    target.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert broken_line(target) == 4


def test_a_writer_continues_after_a_cut_and_a_partial_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.write(Start(total_steps=3))
    position = writer.position()
    writer.write(Warn(message="one"))
    writer.cut(position)
    writer.write(Warn(message="two"))
    with path.open("ab") as file:
        file.write(b'{"event":"warning","mess')
    EventWriter(path).write(End(status="ok"))
    assert [e.event for e in read_events(path)] == ["start", "warning", "end"] and broken_line(path) is None


@pytest.mark.parametrize(
    ("verdicts", "plain", "strict", "words"),
    [
        ((), 0, 0, "Nothing contradicts these 2 runs; no store can show"),
        (("not checked",), 0, 5, "1 thing (c) could not be checked"),
        (("not checked", "warning"), 0, 4, "1 thing (c) worth knowing"),
        (("warning", "failed"), 1, 1, "Do not rely on these 2 runs: 'c' does not hold."),
    ],
)
def test_the_sentence_and_exit_code_follow_from_the_worst(
    verdicts: tuple[Verdict, ...], plain: int, strict: int, words: str
) -> None:
    findings = [Finding("c", verdict, "finetune/1", "detail") for verdict in verdicts]
    audited = pb.Audit(findings, 2)
    assert (audited.exit_code(), audited.exit_code(strict=True)) == (plain, strict)
    assert words in audited.summary and ("--registered" in audited.summary) == ("failed" not in verdicts)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (OpenSSH), which is not installed")
def test_a_registration_from_the_command_line(bench: Bench, tmp_path: Path) -> None:
    """Signed before a suite runs and checked afterwards; other cells cannot be added to the same file."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "me"], check=True)
    (tmp_path / "signers").write_text(f"me {(tmp_path / 'me.pub').read_text()}")
    cells = ("--method", "scratch", "--task", "s3dis-sem", *NANO, "--register", "plan.json")
    run = ("run", *cells)
    planned = bench("plan", *cells)
    assert "plan.json: 1 cells registered" in planned.stderr and not (tmp_path / "runs").exists()
    written = (tmp_path / "plan.json").read_bytes()
    bench(*run, "--sign", "me")
    assert (tmp_path / "plan.json").read_bytes() == written, "`bench run` has the cells that `bench plan` registered"
    assert "--sign signs the registration" in bench(*run[:-2], "--sign", "me", code=2).stderr
    assert "registrations are never changed" in bench(*run, "--pretrain-seed", "3", code=2).stderr
    check = ("audit", "--registered", "plan.json", "--signers", "signers", "--signer")
    done = bench(*check, "me")
    assert registered.PRESENT in done.stdout and "Nothing contradicts these 2 runs" in done.stdout
    strict = run_here((*check, "me", "--strict"), tmp_path)
    assert strict.returncode in (4, 5) and strict.stdout == done.stdout, "5, unless there are uncommitted changes"
    plan = tmp_path / "plan.json"
    plan.write_text(plan.read_text().replace('"format": 1', '"format":  1'))
    bench(*check, "me", code=1)
    shutil.rmtree(next((tmp_path / "runs/finetune").iterdir()))
    assert "has no run here" in bench("audit", "--registered", "plan.json", code=1).stdout


@pytest.mark.parametrize(
    ("twin", "verdict", "words"),
    [
        ("the same file", "warning", "the same backbone as"),
        ("the same weights", "warning", "the same weights as"),
        ("other weights", "failed", "all predictions equal"),
        ("not here", "failed", "all predictions equal"),
        ("imported, not here", "not checked", "an imported checkpoint may have the weights of"),
    ],
)
def test_one_backbone_under_two_keys_is_no_copy(honest: Path, twin: str, verdict: str, words: str) -> None:
    """A pre-training that is rerun after a change of its code may give the same weights under another key, and a backbone that is
    exported and imported has the same weights in another file. A bundle has no weights."""
    runs = read_runs(Store(honest), Tally())
    run = next(r for r in runs.values() if r.spec.kind == "finetune")
    ((stage, key),) = run.spec.parents.items()
    parent, again_key, new_key = runs[key], "e" * 20, "f" * 20
    artifacts, folder, spec_of = parent.record.artifacts, parent.folder, parent.spec
    if twin != "the same file":
        entry = artifacts["backbone.safetensors"].model_copy(update={"sha256": "0" * 64})
        artifacts = {**artifacts, "backbone.safetensors": entry}
    if twin == "other weights":
        folder = next(r.folder for r in runs.values() if r.spec.kind == "pretrain" and r.record.key != key)
    if "not here" in twin:
        folder = folder / "nowhere"
    if "imported" in twin:
        spec_of = spec_of.model_copy(update={"checkpoint": Checkpoint(sha256="0" * 64)})
    record = parent.record.model_copy(update={"key": new_key, "artifacts": artifacts})
    again = run._replace(
        record=run.record.model_copy(update={"key": again_key}),
        spec=run.spec.model_copy(update={"parents": {stage: new_key}}),
    )
    tally = Tally()
    other = parent._replace(record=record, folder=folder, spec=spec_of)
    seeds.check_seeds({key: parent, new_key: other, run.record.key: run, again_key: again}, tally)
    (found,) = [f for f in tally.findings if f.check == seeds.PREDICTIONS and f.verdict != "ok"]
    assert found.verdict == verdict and words in found.detail
