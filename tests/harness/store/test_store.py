"""The store: runs are complete or absent, a stage has one owner, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.locks import host
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec, canonical_json, key_of
from pretrain_bench.harness.executors.output_folder import drop_special_files
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.hashes import hash_artifacts
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.store import Store, read_record, read_spec, write_json


def spec(seed: int = 0) -> StageSpec:
    return StageSpec.model_validate(
        {
            "kind": "pretrain", "method": "scratch", "stage": "init", "seed": seed, "profile": "p", "profile_version": 1,
            "network": {}, "threads": 1, "sparse_backend": "torch", "device": "cpu", "code_sha256": "0" * 64,
            "limits": {"budget": "b", "budget_version": 1, "currency": "optimizer_steps", "amount": 1, "schedule_horizon": "budget"},
        }
    )  # fmt: skip


def record(of: StageSpec, attempt: int = 1, outcome: Outcome = Outcome.ok, **more: object) -> Record:
    return Record(
        key=of.key, kind=of.kind, method=of.method, stage=of.stage, attempt=attempt, outcome=outcome, synthetic=True,
        executor="local", label_isolation="none", provenance=provenance({}), started_at="2026-01-01", ended_at="2026-01-01",
        **more,
    ).sealed()  # fmt: skip


def fill(store: Store, of: StageSpec, text: str = "weights") -> None:
    out = store.partial(of.key) / "root/out/artifacts"
    out.mkdir(parents=True, exist_ok=True)
    (out / "backbone.safetensors").write_text(text)


def finish(store: Store, of: StageSpec, attempt: int = 1, outcome: Outcome = Outcome.ok) -> Path:
    with store.lock(of.key, lambda _: None):
        fill(store, of)
        artifacts = hash_artifacts(store.partial(of.key) / "root/out/artifacts") if outcome == Outcome.ok else {}
        return store.complete(of, record(of, attempt, outcome, artifacts=artifacts))


def test_a_run_becomes_visible_whole_and_leaves_no_partial(tmp_path: Path) -> None:
    store, of = Store(tmp_path), spec()
    folder = finish(store, of)
    assert sorted(p.name for p in folder.iterdir()) == ["artifacts", "attempts", "record.json", "spec.json"]
    assert not store.partial(of.key).exists()
    found = store.record("pretrain", of.key)
    assert (
        found is not None and found == record(of, artifacts=found.artifacts) and found.sha256 == found.content_sha256()
    )
    assert StageSpec.model_validate_json((folder / "spec.json").read_bytes()) == of


def test_the_spec_file_gives_the_key_again(tmp_path: Path) -> None:
    folder = finish(Store(tmp_path), spec())
    assert StageSpec.model_validate_json((folder / "spec.json").read_bytes()).key == folder.name


def test_a_spec_from_before_a_field_existed_is_read_and_an_edited_one_is_not(tmp_path: Path) -> None:
    """Its key hashes the fields written at the time, not those that this version would write."""
    plain = spec().model_dump(mode="json")
    del plain["settings"], plain["precision"], plain["network"]["first_kernel"]
    folder = tmp_path / key_of(plain)
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(plain))
    found = read_spec(folder)
    assert found.settings == {} and found.precision == "fp32" and found.key != folder.name
    (folder / "spec.json").write_text(json.dumps({**plain, "seed": 7}))
    with pytest.raises(WrongUse, match="belongs to key"):
        read_spec(folder)
    (folder / "spec.json").write_text("{")
    with pytest.raises(WrongUse, match="not a stage spec"):
        read_spec(folder)


def test_every_attempt_is_kept(tmp_path: Path) -> None:
    store, of = Store(tmp_path), spec()
    assert store.next_attempt(of) == 1
    finish(store, of, 1, Outcome.crashed)
    assert store.next_attempt(of) == 2
    with store.lock(of.key, lambda _: None):
        store.keep_attempt(record(of, 2, Outcome.cancelled))
    assert store.next_attempt(of) == 3
    folder = finish(store, of, 3)
    outcomes = [json.loads((folder / f"attempts/{n}/record.json").read_text())["outcome"] for n in (1, 2, 3)]
    assert outcomes == ["crashed", "cancelled", "ok"]
    assert read_record(folder / "record.json").attempt == 3


def _hold(root: Path, key: str, ready, release) -> None:
    with Store(root).lock(key, lambda _: None):
        ready.set()
        release.wait(20)


def test_a_second_process_waits_and_names_the_owner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, "k", ready, release))
    holder.start()
    assert ready.wait(30)
    told: list[str] = []

    def waiting(who: str) -> None:
        told.append(who)
        release.set()

    with Store(tmp_path).lock("k", waiting):
        pass
    holder.join(20)
    assert len(told) == 1 and told[0].startswith(f"{host()}, pid {holder.pid}, since ")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = f"from pathlib import Path; import time\nfrom pretrain_bench.harness.store.store import Store\nwith Store(Path({str(tmp_path)!r})).lock('k', print): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with Store(tmp_path).lock("k", lambda who: pytest.fail(f"waited for {who}")):
        assert time.monotonic() - began < 5


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentCannot, match=r"\(--runs names another folder\): cannot be written: Not a directory"):
        Store(tmp_path / "file" / "runs").check_writable()


def test_records_that_do_not_parse_are_named(tmp_path: Path) -> None:
    store, of = Store(tmp_path), spec()
    path = finish(store, of) / "record.json"
    data = json.loads(path.read_text())
    for spoilt, said in (
        ({**data, "outcome": "fine"}, "outcome"),
        ({**data, "extra": 1}, "extra"),
        ({**data, "schema_version": 99}, "schema_version"),
    ):
        write_json(path, spoilt)
        assert not list(store.records()) and said in store.unreadable()[0]
    path.write_text("{")
    assert not list(store.records()) and "not a record" in store.unreadable()[0]
    good = finish(store, spec(seed=1))
    assert [r.key for r in store.records()] == [good.name] and len(store.unreadable()) == 1, "the rest works"


def test_a_changed_record_does_not_match_its_own_hash(tmp_path: Path) -> None:
    good = record(spec(), metrics={"miou_voxel_final": 0.5})
    assert good.model_copy(update={"metrics": {"miou_voxel_final": 0.6}}).content_sha256() != good.sha256


def test_a_record_is_hashed_as_it_was_written(tmp_path: Path) -> None:
    store, of = Store(tmp_path), spec()
    path = finish(store, of) / "record.json"
    old = json.loads(path.read_text())
    del old["measured"]["gpu_joules"], old["sha256"]  # a field that was added later
    old["metrics"] = {"miou_voxel_final": 7.858854964831624e-05}
    sealed = {**old, "sha256": hashlib.sha256(canonical_json(old).encode()).hexdigest()}
    write_json(path, sealed)
    assert read_record(path).measured.gpu_joules is None
    write_json(path, {**sealed, "metrics": {}})
    with pytest.raises(WrongUse, match="does not match its own hash"):
        read_record(path)


def test_records_name_no_person_and_no_path(tmp_path: Path) -> None:
    text = record(spec()).model_dump_json()
    assert str(Path.home()) not in text and os.uname().nodename not in text


def test_find_by_prefix(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two = finish(store, spec(1)), finish(store, spec(2))
    assert store.find(one.name[:8]) == one
    with pytest.raises(WrongUse, match="2 runs"):
        store.find("")
    with pytest.raises(WrongUse, match="no run"):
        store.find("zzz")
    assert two.is_dir()


def test_records_of_version_1_are_read_and_checked(tmp_path: Path) -> None:
    old = json.loads((Path(__file__).parent / "records/v1.json").read_text())
    found = read_record(Path(__file__).parent / "records/v1.json")
    assert old["schema_version"] == 1 and found.schema_version == 2
    assert (found.key, found.metrics, found.sha256) == (old["key"], old["metrics"], found.content_sha256())
    assert found.not_enforced == () and found.measured.gpu_seconds == 0
    write_json(tmp_path / "edited.json", old | {"method": "ours"})
    with pytest.raises(WrongUse, match="does not match its own hash"):
        read_record(tmp_path / "edited.json")


def power_cut(folder: Path) -> None:
    """Simulate a power failure: files that were not flushed keep their names but lose their content."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def test_all_of_a_run_is_on_the_disk_before_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[tuple[int, int]] = set()
    on_disk, fsync, rename = [], os.fsync, os.rename

    def note(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add((status.st_dev, status.st_ino))

    def check(source: Path, target: Path) -> None:
        if Path(target).name == "complete-pretrain":
            inside = [Path(source), *Path(source).rglob("*")]
            on_disk.append(all((p.stat().st_dev, p.stat().st_ino) in synced for p in inside))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", check)
    folder = finish(Store(tmp_path), spec())
    assert on_disk == [True]
    status = folder.parent.stat()
    assert (status.st_dev, status.st_ino) in synced, "and so is its name in the store"


def test_an_emptied_run_that_was_not_published_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, of = Store(tmp_path), spec()
    monkeypatch.setattr(Store, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        finish(store, of)
    monkeypatch.undo()
    power_cut(store.partial(of.key) / "complete-pretrain")
    with store.lock(of.key, lambda _: None) as partial:
        assert not (partial / "complete-pretrain").exists() and store.record("pretrain", of.key) is None
    assert store.record("pretrain", finish(store, of).name) is not None


def test_a_kill_while_a_run_is_assembled_leaves_no_second_link_to_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files with two links look like links to files outside, and the next attempt would lose its events."""
    store, of = Store(tmp_path), spec()
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    out = store.partial(of.key) / "root/out"
    out.mkdir(parents=True)
    (out / EVENTS_FILE).write_text("events")
    with pytest.raises(KeyboardInterrupt):
        finish(store, of)
    monkeypatch.undo()
    files = [out / EVENTS_FILE, out / "artifacts/backbone.safetensors"]
    assert [p.stat().st_nlink for p in files] == [2, 2]
    with store.lock(of.key, lambda _: None):
        drop_special_files(out)
        assert [p.stat().st_nlink for p in files] == [1, 1]


@pytest.mark.parametrize("moved", [True, False])
def test_a_loss_is_admitted_when_the_stage_runs_again(moved: bool, tmp_path: Path) -> None:
    store, of = Store(tmp_path / "runs"), spec()
    folder = finish(store, of)
    lost = read_record(folder / "record.json").sha256
    if moved:
        folder.rename(tmp_path / "aside")
    else:
        power_cut(folder)
    finish(store, of, attempt=2)
    links = chain.links_of(store.root, "pretrain", of.key)
    assert [link.outcome for link in links] == ["ok", "lost", "ok"] and links[1].record_sha256 == lost
    finish(store, of, attempt=3, outcome=Outcome.crashed)
    assert [link.outcome for link in chain.links_of(store.root, "pretrain", of.key)].count("lost") == 1, "once"
    whole = chain.read(store.root)
    assert whole is not None and not whole.faults


def test_removals_that_were_cut_off_are_finished(tmp_path: Path) -> None:
    """By the next command that writes, and by `bench clean --abandoned`; a stage with an owner stays."""
    store = Store(tmp_path)
    gone = tmp_path / ".partial" / ".gone-0123-45"
    for finish_it in (store.check_writable, lambda: pb.clean(tmp_path, abandoned=True)):
        (gone / "root").mkdir(parents=True)
        assert pb.clean(tmp_path, abandoned=True, dry_run=True)[0].key == gone.name
        finish_it()
        assert not gone.exists()


def test_cleaning_beside_a_run_keeps_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the run acquires the stage after `clean` has checked its owner."""
    store, of = Store(tmp_path), spec()
    with store.lock(of.key, lambda _: None):
        fill(store, of)
        assert pb.clean(tmp_path, abandoned=True) == []
        monkeypatch.setattr(Store, "held_by", lambda *_: None)
        pb.clean(tmp_path, abandoned=True)
        assert (store.partial(of.key) / "root/out/artifacts/backbone.safetensors").is_file()
    pb.clean(tmp_path, abandoned=True)
    assert not store.partial(of.key).exists()
