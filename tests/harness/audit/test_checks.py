"""Single checks: honest runs that a check must not fail, and edits that it must not excuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.checkpoint import Checkpoint
from pretrain_bench.harness.audit import audit as auditing
from pretrain_bench.harness.audit import limits, registered, rerun, seeds, static
from pretrain_bench.harness.audit.findings import Finding, Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, read_runs
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.registration import register
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.store.retention import BACKBONE
from pretrain_bench.harness.store.spec_reader import SharedSpec
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench
from tests.harness.audit.conftest import planned_cells
from tests.harness.store.test_store import fill, record, spec


@pytest.fixture(scope="module")
def read(honest: Path) -> Runs:
    return read_runs(Store(honest), Tally())


def run_of(runs: Runs, method: str, kind: str, seed: int = 0) -> AuditedRun:
    return next(r for r in runs.values() if (r.spec.method, r.spec.kind, r.spec.seed) == (method, kind, seed))


def changed(run: AuditedRun, record: dict[str, object] | None = None, **fields: object) -> AuditedRun:
    """A run with other fields of its spec and record."""
    other = run.spec.model_copy(update=fields)
    return run._replace(spec=other, shared=SharedSpec(other), record=run.record.model_copy(update=record or {}))


def findings(tally: Tally, check: str) -> list[Finding]:
    return [f for f in tally.findings if f.check == check]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"schedule_horizon": "recipe"}, "schedule_horizon recipe instead of budget"),
        ({"loader_workers": 3}, "loader_workers 3 instead of 0"),
        ({"amount": 1.0}, "amount 1 instead of 60"),
        ({"amount": 61.0}, "amount 61 instead of 60"),
    ],
)
def test_every_limit_is_compared_with_the_budget(read: Runs, limit: dict[str, object], words: str) -> None:
    run = run_of(read, "csc", "pretrain")
    tally = Tally()
    limits.check_budget(changed(run, limits=run.spec.limits.model_copy(update=limit)), read, tally)
    (found,) = findings(tally, limits.BUDGET)
    assert found.verdict == "failed" and words in found.detail


def test_a_users_method_may_split_its_budget_and_need_labels(read: Runs) -> None:
    """What its stages share, and whether it needs labels, is not in this release but in its own file."""
    run = run_of(read, "csc", "pretrain")
    assert run.spec.data is not None and run.record.method_card is not None
    first_key = "f" * 20
    for amounts, verdicts in (((30.0, 30.0), []), ((60.0, 60.0), ["failed"]), ((0.0, 30.0), ["failed"])):
        given = [run.spec.limits.model_copy(update={"amount": amount}) for amount in amounts]
        first = changed(run, {"key": first_key, "artifacts": {}}, method="mine", limits=given[0])
        last = changed(run, method="mine", limits=given[1], parents={"first": first_key})
        tally = Tally()
        for stage in (first, last):
            limits.check_budget(stage, {first_key: first}, tally)
        assert [f.verdict for f in findings(tally, limits.BUDGET)] == verdicts, amounts
    labelled = run.spec.data.model_copy(update={"view": "labelled"})
    for uses_labels in (True, False):
        tally = Tally()
        card = run.record.method_card.model_copy(update={"uses_labels": uses_labels})
        static._check_labels(changed(run, {"method_card": card}, method="mine", data=labelled), tally)
        assert bool(findings(tally, "no labels in pre-training")) is not uses_labels


@pytest.mark.parametrize(("field", "value"), [("budget", "tiny"), ("profile", "tiny"), ("dataset", "scannet")])
def test_only_the_failure_of_its_own_stage_excuses_a_missing_cell(
    read: Runs, tmp_path: Path, module_cache: None, field: str, value: str
) -> None:
    plan = tmp_path / "plan.json"
    register(plan, ("honest", 1), planned_cells(), None)
    left = {key: run for key, run in read.items() if run.spec.method != "csc"}
    pretraining = run_of(read, "csc", "pretrain")
    crash = {"outcome": Outcome.crashed, "artifacts": {}}
    own = changed(pretraining, crash)
    others = {
        "budget": changed(pretraining, crash, limits=pretraining.spec.limits.model_copy(update={"budget": value})),
        "profile": changed(pretraining, crash, profile=value),
        "dataset": changed(pretraining, crash | {"dataset": value}),
    }
    for failed, verdict in ((own, "warning"), (others[field], "failed")):
        tally = Tally()
        registered.check_registered(plan, {**left, pretraining.record.key: failed}, None, None, tally)
        (found,) = findings(tally, registered.PRESENT)
        assert found.verdict == verdict, found


def test_one_checkpoint_imported_twice_is_not_two_seeds(read: Runs) -> None:
    """As two files it has two hashes; its weights are the same."""
    one, two = (run_of(read, "scratch", "pretrain", seed) for seed in (0, 1))

    def imported(run: AuditedRun, number: int, weights: Record) -> AuditedRun:
        return changed(run, {"artifacts": weights.artifacts}, checkpoint=Checkpoint(sha256=str(number) * 64))

    for weights, verdicts in ((two.record, []), (one.record, ["failed"])):
        tally = Tally()
        pair = [imported(one, 0, one.record), imported(two, 1, weights)]
        seeds.check_seeds({run.record.key: run for run in pair}, tally)
        assert [f.verdict for f in findings(tally, seeds.WEIGHTS)] == verdicts
    assert BACKBONE in one.record.artifacts


@pytest.mark.parametrize(("torch", "verdict"), [("other", "warning"), ("same", "failed")])
def test_a_repeated_success_may_differ_on_other_numerics(tmp_path: Path, torch: str, verdict: str) -> None:
    """As when a pruned pre-training runs again on another machine."""
    store, of = Store(tmp_path), spec(0)
    for attempt, numerics in ((1, "same"), (2, torch)):
        with store.lock(of.key, lambda _: None):
            fill(store, of, f"weights {attempt}")
            whole = record(of, attempt, artifacts=_hashes(store, of))
            provenance = whole.provenance.model_copy(update={"numerics": {"torch": numerics}})
            store.complete(of, whole.model_copy(update={"provenance": provenance}).sealed())
    tally = Tally()
    static.audit_files(store, tally)
    assert [f.verdict for f in tally.findings if "attempts/1" in f.detail] == [verdict]


def _hashes(store: Store, of: StageSpec) -> dict[str, object]:
    from pretrain_bench.harness.store.hashes import hash_artifacts

    return dict(hash_artifacts(store.partial(of.key) / "root/out/artifacts"))


def test_the_summary_counts_the_audited_runs_only(honest: Path, read: Runs, bench: Bench) -> None:
    key = run_of(read, "csc", "finetune").record.key
    said = bench("audit", key, "--no-rescore", "--runs", str(honest)).stdout
    assert "Nothing contradicts this run;" in " ".join(said.split())


@pytest.mark.parametrize(
    ("was", "outcome", "numerics", "verdict"),
    [
        (Outcome.ok, Outcome.crashed, "same", "failed"),
        (Outcome.ok, Outcome.crashed, "other", "not checked"),
        (Outcome.ok, Outcome.timeout, "same", "not checked"),
        (Outcome.crashed, Outcome.crashed, "same", "ok"),
    ],
)
def test_a_rerun_that_fails_is_a_finding_among_the_others(
    honest: Path,
    read: Runs,
    monkeypatch: pytest.MonkeyPatch,
    was: Outcome,
    outcome: Outcome,
    numerics: str,
    verdict: str,
) -> None:
    run = run_of(read, "csc", "finetune")
    provenance = run.record.provenance
    if numerics == "other":
        provenance = provenance.model_copy(update={"numerics": {"torch": "other"}})
    again = run.record.model_copy(update={"outcome": outcome, "message": "exit code 1", "provenance": provenance})

    def fail(*_: object) -> None:
        raise rerun.RerunFailed(again)

    monkeypatch.setattr(rerun, "repeat", fail)
    recorded = changed(run, {"outcome": was})
    tally = Tally()
    auditing._run_again(recorded, {**read, run.record.key: recorded}, 2, tally, Silent())
    (judged,) = [f for f in tally.all() if f.check == rerun.CHECK]
    assert judged.verdict == verdict
    if verdict != "ok":
        assert judged.detail == f"the rerun ended as {outcome.value}: exit code 1"
