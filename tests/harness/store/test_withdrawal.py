"""Withdrawn runs are gone with all that builds on them, and an audit names them; and what was in a store before its chain."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.api import cleaning
from pretrain_bench.harness.audit.audit import AuditOptions, audit
from pretrain_bench.harness.audit.findings import Finding
from pretrain_bench.harness.audit.pack import PackOptions, pack
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.store import chain, withdrawal
from pretrain_bench.harness.store.retention import PRUNED, is_kept, prunable, prune
from pretrain_bench.harness.store.store import Store, write_json
from tests.conftest import Bench
from tests.harness.store.bundles import members
from tests.harness.store.test_store import fill, finish, record, spec

WHY = "the schedule was wrong"
CHECK = "no run was removed or inserted"


def child_of(parent: StageSpec) -> StageSpec:
    return StageSpec.model_validate({**spec().model_dump(mode="json"), "seed": 7, "parents": {"init": parent.key}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs, and a third that builds on the first."""
    store = Store(tmp_path / "runs")
    for of in (spec(0), spec(1), child_of(spec(0))):
        finish(store, of)
    return store


def findings(path: Path, check: str = CHECK) -> list[Finding]:
    done = audit(path, AuditOptions(rescore=False), Silent())
    return [f for f in done.tally.all() if f.check == check and f.verdict != "ok"]


def keys(store: Store) -> set[str]:
    return {record.key for record in store.records()}


def test_a_withdrawn_run_is_gone_with_all_that_builds_on_it(store: Store, bench: Bench, tmp_path: Path) -> None:
    key, child = spec(0).key, child_of(spec(0)).key
    words = ("clean", "--runs", str(store.root), "--withdraw", key[:8])
    listed = bench(*words, "--why", WHY, "--dry-run").stdout
    as_json = json.loads(bench(*words, "--why", WHY, "--dry-run", "--json").stdout)
    assert as_json["dry_run"] and [r["key"] for r in as_json["removed"]] == [child, key], (
        "what builds on others comes first"
    )
    assert key in listed and child in listed and "would free" in listed and len(keys(store)) == 3
    assert "give the reason" in bench(*words, code=2).stderr and len(keys(store)) == 3
    assert key in bench(*words, "--why", WHY).stdout
    assert keys(store) == {spec(1).key} and not store.partial_folders()
    named = findings(store.root)
    assert {f.subject for f in named} == {f"pretrain/{key}", f"pretrain/{child}"}
    assert all(f.verdict == "warning" and f.detail == f"attempt 1, ok, was withdrawn: {WHY}" for f in named)
    bundle = tmp_path / "packed.tar.zst"
    pack(audit(store.root, AuditOptions(rescore=False), Silent()).runs, store.root, bundle, PackOptions(), print)
    assert findings(bundle) == named, "a bundle says so as well"


def test_a_withdrawn_stage_may_run_again(store: Store) -> None:
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    again = record(spec(1)).model_copy(update={"ended_at": "2026-01-02"}).sealed()
    with store.lock(again.key, print):
        fill(store, spec(1))
        store.complete(spec(1), again)
    links = [link.outcome for link in chain.links_of(store.root, "pretrain", spec(1).key)]
    assert links == ["ok", "withdrawn", "ok"]
    (named,) = findings(store.root)
    assert named.verdict == "warning" and not findings(store.root, "every attempt is kept")


def test_a_withdrawal_that_was_cut_off_is_finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(withdrawal.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        pb.withdraw(store.root, [spec(1).key], why=WHY)
    monkeypatch.undo()
    assert spec(1).key in keys(store)
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    assert spec(1).key not in keys(store)
    assert [link.outcome for link in chain.links_of(store.root, "pretrain", spec(1).key)] == ["ok", "withdrawn"]


def test_what_cannot_be_withdrawn(store: Store, bench: Bench) -> None:
    words = ("clean", "--runs", str(store.root))
    for more, problem in (
        (("--withdraw", "zz", "--why", WHY), "no run in"),
        (("--withdraw", "", "--why", WHY), "3 runs in"),
        (("--withdraw", spec(1).key, "--why", " "), "give the reason"),
        (("--withdraw", spec(1).key, "--why", WHY, "--abandoned"), "--withdraw and --abandoned: one at a time"),
        (("--withdraw", spec(1).key, "--why", WHY, "--keep", "none"), "--withdraw and --keep: one at a time"),
        (("--withdraw", spec(1).key, "--why", "x" * 501), "at most 500 characters"),
        (("--why", WHY), "--withdraw KEY, which is missing"),
    ):
        assert problem in bench(*words, *more, code=2).stderr
    with store.lock(spec(0).key, print), pytest.raises(pb.WrongUse, match="runs one of these stages"):
        pb.withdraw(store.root, [spec(1).key, spec(0).key], why=WHY)
    (store.folder("pretrain", spec(1).key) / "record.json").write_text("{}")
    with pytest.raises(pb.WrongUse, match="nothing was removed: "):
        pb.withdraw(store.root, [spec(0).key], why=WHY)
    assert len(list((store.root / "pretrain").iterdir())) == 3


def test_a_stage_in_progress_keeps_what_it_builds_on_and_a_killed_one_does_not(store: Store) -> None:
    grandchild = child_of(child_of(spec(0)))
    with store.lock(grandchild.key, print) as partial:
        write_json(partial / "root/in/stage.json", grandchild.model_dump(mode="json"))
        with pytest.raises(pb.WrongUse, match="nothing was removed: a stage in progress builds on pretrain/"):
            pb.withdraw(store.root, child_of(spec(0)).key, why=WHY)
    pb.withdraw(store.root, child_of(spec(0)).key, why=WHY)
    assert keys(store) == {spec(0).key, spec(1).key}


def test_a_run_that_builds_on_them_and_ends_meanwhile_stops_the_withdrawal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, grandchild = withdrawal.withdrawable, child_of(child_of(spec(0)))
    calls: list[int] = []

    def and_then_one_ends(*arguments: Any) -> Any:
        found = before(*arguments)
        calls.append(len(found))
        if len(calls) == 1:
            finish(store, grandchild)
        return found

    monkeypatch.setattr(withdrawal, "withdrawable", and_then_one_ends)
    with pytest.raises(pb.WrongUse, match="other runs build on these by now"):
        withdrawal.withdraw(store, [spec(0).key], WHY)
    assert calls == [2, 3] and len(keys(store)) == 4
    withdrawal.withdraw(store, [spec(0).key], WHY)
    assert keys(store) == {spec(1).key}


@pytest.mark.parametrize("why", ["ж" * 500, "\udcff not UTF-8", 'a "quoted"\nreason', "x" * 500])
def test_any_reason_leaves_the_chain_intact(why: str, store: Store) -> None:
    """A line of more than 4,096 bytes once broke the chain."""
    for seed in (0, 1):
        pb.withdraw(store.root, [spec(seed).key], why=why)
    finish(store, spec(2))
    whole = chain.read(store.root)
    assert whole is not None and not whole.faults and len(findings(store.root)) == 3


@pytest.mark.parametrize("has_chain", [True, False])
def test_a_run_without_a_line_leaves_one_when_it_is_withdrawn(has_chain: bool, store: Store) -> None:
    lines = (store.root / chain.CHAIN_FILE).read_text().splitlines(keepends=True)
    (store.root / chain.CHAIN_FILE).write_text(lines[0])
    if not has_chain:
        (store.root / chain.CHAIN_FILE).unlink()
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    assert [f.detail for f in findings(store.root) if WHY in f.detail] == [f"attempt 1, ok, was withdrawn: {WHY}"]


def test_a_run_whose_only_line_is_its_pruning_leaves_one_too(store: Store) -> None:
    """Of a chain of an older version, or copied into the store: its pruning does not hide that."""
    os.unlink(store.root / chain.CHAIN_FILE)
    chain.append_pruned(store.root, record_of(store, spec(1)))
    named = {f.subject: f for f in findings(store.root)}
    assert len(named) == 3
    assert ["only its pruning" in f.detail for f in named.values() if f.verdict == "warning"] == [True]
    pb.withdraw(store.root, spec(1).key, why=WHY)
    links = [(link.outcome, link.found) for link in chain.links_of(store.root, "pretrain", spec(1).key)]
    assert links == [("pruned", None), ("ok", True), ("withdrawn", None)]


def record_of(store: Store, of: StageSpec) -> Record:
    found = store.record(of.kind, of.key)
    assert found is not None
    return found


def test_a_run_that_was_about_to_be_published_goes_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    grandchild = child_of(child_of(spec(0)))

    def killed(kind: str, key: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(store, grandchild)
    assert grandchild.key not in keys(store)
    removed = pb.withdraw(store.root, spec(0).key, why=WHY)
    assert len(removed) == 3 and keys(store) == {spec(1).key} and not store.partial_folders()
    assert [f.verdict for f in findings(store.root)] == ["warning"] * 3


def test_what_a_killed_stage_made_of_a_withdrawn_run_is_not_resumed(store: Store) -> None:
    grandchild = child_of(child_of(spec(0)))
    with store.lock(grandchild.key, print) as partial:
        write_json(partial / "root/in/stage.json", grandchild.model_dump(mode="json"))
    pb.withdraw(store.root, child_of(spec(0)).key, why=WHY)
    assert not partial.exists()


def test_a_withdrawal_cut_off_between_two_runs_is_finished_by_the_same_command(store: Store) -> None:
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    assert len(pb.withdraw(store.root, [spec(1).key, spec(0).key], why=WHY)) == 2
    assert not keys(store) and pb.withdraw(store.root, [spec(1).key], why=WHY) == []


def test_a_run_with_resumable_state_of_its_own_is_withdrawn(store: Store) -> None:
    """As after `bench run --retry failed` and Ctrl-C: this command's own lock is not a stage in progress."""
    child = child_of(spec(0))
    with store.lock(child.key, lambda _: None) as partial:
        write_json(partial / "root/in/stage.json", child.model_dump(mode="json"))
    pb.withdraw(store.root, spec(0).key, why=WHY)
    assert keys(store) == {spec(1).key}


def test_pruning_leaves_what_a_stage_needs_that_begins_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    child = StageSpec.model_validate({**child_of(spec(1)).model_dump(mode="json"), "seed": 8})
    with store.lock(child.key, lambda _: None) as partial:

        def listed(*arguments: Any) -> Any:
            found = list(prunable(*arguments))  # takes a while in a large store
            write_json(partial / "root/in/stage.json", child.model_dump(mode="json"))
            return iter(found)

        monkeypatch.setattr(cleaning, "prunable", listed)
        removed = {one.key for one in pb.clean(store.root, keep="none")}
    assert removed == {spec(0).key, child_of(spec(0)).key}
    folder = store.folder("pretrain", spec(1).key)
    assert (folder / "artifacts/backbone.safetensors").is_file() and not (folder / PRUNED).exists()


def test_a_run_that_is_being_repeated_is_not_pruned(store: Store) -> None:
    found = [run for run in prunable(store, "none") if run.record.key == spec(1).key]
    with store.lock(spec(1).key, lambda _: None):
        assert not prune(found[0], "none")
    store.drop_partial(spec(1).key)
    assert prune(found[0], "none") and not store.partial(spec(1).key).exists()


def test_what_later_stages_read_is_kept_by_default() -> None:
    """The 2D network of `ours` is two files: weights, and the settings to build it from."""
    assert is_kept("image_network.safetensors", "best") and is_kept("image_network.json", "best")
    assert not is_kept("test/room.npy", "best") and not is_kept("image_network.json", "final")


def test_a_bucket_is_not_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for clean in (pb.clean, lambda runs: pb.withdraw(runs, "x", why=WHY)):
        with pytest.raises(pb.WrongUse, match=r"only `bench run` writes to a bucket"):
            clean("s3://bucket/runs")
    assert not list(tmp_path.iterdir())


def test_pruning_beside_a_withdrawal_does_not_bring_a_folder_back(store: Store) -> None:
    pruned = [run for run in prunable(store, "none") if run.record.key == spec(1).key]
    pb.withdraw(store.root, spec(1).key, why=WHY)
    for run in pruned:
        prune(run, "none")
    assert pruned and not store.folder("pretrain", spec(1).key).exists()


def test_an_anonymous_bundle_leaves_the_reasons_out(store: Store, tmp_path: Path) -> None:
    pb.withdraw(store.root, spec(1).key, why="Alice did not like it")
    bundle = tmp_path / "packed.tar.zst"
    runs = audit(store.root, AuditOptions(rescore=False), Silent()).runs
    pack(runs, store.root, bundle, PackOptions(anonymous=True), print)
    assert b"Alice" not in members(bundle)[chain.CHAIN_FILE]
    assert [f.detail for f in findings(bundle)] == ["attempt 1, ok, was withdrawn: not in the bundle"]


def test_a_damaged_chain_and_a_folder_without_a_run_stop_a_withdrawal(store: Store) -> None:
    (store.root / "pretrain/0000000000").mkdir()
    with pytest.raises(pb.WrongUse, match="nothing was removed: 0000000000: not a run"):
        pb.withdraw(store.root, ["00000"], why=WHY)
    path = store.root / chain.CHAIN_FILE
    path.write_text("x" + path.read_text())
    with pytest.raises(pb.WrongUse, match="nothing was removed: .*chain.jsonl: line 1 is damaged"):
        pb.withdraw(store.root, [spec(1).key], why=WHY)


def test_a_withdrawn_run_that_is_put_back_fails_the_audit(store: Store, tmp_path: Path) -> None:
    folder = store.folder("pretrain", spec(1).key)
    shutil.copytree(folder, tmp_path / "kept")
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    shutil.copytree(tmp_path / "kept", folder)
    (named,) = findings(store.root)
    assert named.verdict == "failed" and "was withdrawn, but is here" in named.detail
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    assert [f.verdict for f in findings(store.root)] == ["warning"]


@pytest.mark.parametrize("begun_by", ["a run", "pruning"])
def test_runs_older_than_the_chain_are_no_fraud(begun_by: str, store: Store) -> None:
    """A chain begins in a store of an older version, or of runs that were copied: with a line for each of them."""
    os.unlink(store.root / chain.CHAIN_FILE)
    if begun_by == "a run":
        finish(store, spec(2))
    else:
        pb.clean(store.root, keep="none")
    named = findings(store.root)
    assert len(named) == 3 and all(f.verdict == "warning" and "before the chain began" in f.detail for f in named)
    whole = chain.read(store.root)
    assert whole is not None and not whole.faults
    pb.withdraw(store.root, [spec(1).key], why=WHY)
    assert sorted(f.verdict for f in findings(store.root)) == ["warning"] * 3


def test_lines_of_older_chains_keep_their_hashes() -> None:
    link = chain._link(record(spec()), "ok")
    assert set(json.loads(link.line())) == {"kind", "key", "attempt", "outcome", "record_sha256", "before"}
    assert '"why":"x"' in link.model_copy(update={"why": "x"}).line()
