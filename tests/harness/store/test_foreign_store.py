"""An untrusted store: no record, link or pipe in it causes a read, removal or overwrite outside of it."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

import pretrain_bench as pb
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE, broken_line, read_events
from pretrain_bench.harness.contract.records import ArtifactEntry, Outcome, Record
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.retention import Prunable, prunable, prune
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench
from tests.harness.store.test_store import finish, record, spec


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder of the user's that must not change."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "backbone.safetensors").write_text("the user's own")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def verdicts(store: Store, check: str) -> list[str]:
    return [f"{f.verdict}: {f.detail}" for f in pb.audit(store.root).findings if f.check == check]


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../home/backbone.safetensors", "a/../../b", "", "a\x1b[2J"])
def test_a_record_names_no_file_outside(name: str, store: Store, private: Path) -> None:
    folder = finish(store, spec())
    plain = json.loads((folder / "record.json").read_bytes())
    plain["artifacts"] = {name: plain["artifacts"]["backbone.safetensors"]}
    with pytest.raises(ValidationError):
        Record.model_validate(plain)
    entry = ArtifactEntry(bytes=1, sha256="0" * 64)
    resealed = record(spec()).model_copy(update={"artifacts": {name: entry}}).sealed()
    (folder / "record.json").write_text(json.dumps(resealed.model_dump(mode="json")))
    assert not list(store.records()) and not list(prunable(store, "none"))
    assert "artifacts" in store.unreadable()[0] and (private / "backbone.safetensors").exists()
    assert any(v.startswith("failed") for v in verdicts(store, "record and spec parse and match their hashes"))


def test_a_folder_of_artifacts_that_is_a_link_is_not_entered(store: Store, private: Path, tmp_path: Path) -> None:
    folder = finish(store, spec())
    for path in (folder / "artifacts").iterdir():
        path.unlink()
    (folder / "artifacts").rmdir()
    (folder / "artifacts").symlink_to(private)
    assert not list(prunable(store, "none"))
    damaged = Record.model_validate_json((folder / "record.json").read_bytes())
    with pytest.raises(OSError, match="Not a directory"):
        prune(Prunable(folder, damaged, ["backbone.safetensors"], 1), "none")
    assert (private / "backbone.safetensors").read_text() == "the user's own"
    assert any("a link or special file" in v for v in verdicts(store, "artifacts match their hashes"))
    pb.pack_bundle(tmp_path / "out.bundle.tar.zst", runs=store.root)
    for packed in _files(pb.open_runs(tmp_path / "out.bundle.tar.zst").root):
        assert "the user's own" not in packed.read_text(errors="replace")


@pytest.mark.parametrize(
    "place", ["spec.json", "pruned.json", "log.txt", "code.json", "confusion.json", "events.jsonl"]
)
@pytest.mark.parametrize("kind", ["pipe", "zero", "private"])
def test_links_and_pipes_in_the_place_of_files_are_not_followed(
    place: str, kind: str, store: Store, private: Path, tmp_path: Path
) -> None:
    """Opening a pipe or /dev/zero would hang this test or fill the memory."""
    path = finish(store, spec()) / place
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "zero" else private / "backbone.safetensors")
    pb.audit(store.root)
    list(prunable(store, "none"))
    if place != "spec.json":  # a run without a spec is not packed
        pb.pack_bundle(tmp_path / "out.bundle.tar.zst", runs=store.root)
        for packed in _files(pb.open_runs(tmp_path / "out.bundle.tar.zst").root):
            assert "the user's own" not in packed.read_text(errors="replace")


def test_a_lost_run_that_ran_again_is_a_warning(store: Store, tmp_path: Path) -> None:
    folder = finish(store, spec())
    folder.rename(tmp_path / "aside")
    assert any(v.startswith("failed") for v in verdicts(store, "no run was removed or inserted")), "not yet admitted"
    finish(store, spec(), attempt=2)
    (found,) = [v for v in verdicts(store, "no run was removed or inserted") if not v.startswith("ok")]
    assert found == "warning: attempt 1, ok, was lost and the stage was rerun"
    assert all(v.startswith("ok") for v in verdicts(store, "every attempt is kept"))


def test_metrics_and_ledgers_are_numbers_that_can_be() -> None:
    good = record(spec(), outcome=Outcome.ok).model_dump(mode="json")
    for field, value in (
        ("metrics", {"\x1b[31mmiou": 0.5}), ("metrics", {"m" * 700_000: 0.5}), ("ledger", {"cpu_seconds": -1.0}),
        ("measured", {"wall_seconds": -1.0}), ("key", "../x"), ("parents", {"points": "/abs"}),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=field):
            Record.model_validate({**good, field: value})


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_nothing_is_written_through_a_link(store: Store, private: Path) -> None:
    """Neither the chain nor the temporary file of `replacing`; but a run folder that links to a larger disk is read."""
    victim = private / "backbone.safetensors"
    folder = finish(store, spec())
    (folder / "pruned.json.tmp").symlink_to(victim)
    prune(next(prunable(store, "none")), "none")
    assert victim.read_text() == "the user's own" and not (folder / "pruned.json").is_symlink()
    moved = private / folder.name
    folder.rename(moved)
    folder.symlink_to(moved)
    assert [r.key for r in store.records()] == [folder.name]
    (store.root / "chain.jsonl").unlink()
    (store.root / "chain.jsonl").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        finish(store, spec(seed=1))
    assert victim.read_text() == "the user's own"


def test_folders_that_cannot_be_synced_are_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    assert (finish(store, spec()) / "record.json").is_file()


def test_cleaning_removes_nothing_behind_a_link(store: Store, private: Path, bench: Bench) -> None:
    """`.partial`, the state of a stage, or its lock is a link to the user's files."""
    (private / "folder").mkdir()
    (private / "folder" / "lock").write_text("the user's own")
    partial = store.root / ".partial"
    store.root.mkdir()
    partial.symlink_to(private)
    assert "a link" in bench("clean", "--abandoned", "--runs", str(store.root), code=2).stderr
    with pytest.raises(WrongUse, match="a link"):
        store.check_writable()
    partial.unlink()
    partial.mkdir()
    (partial / "a").symlink_to(private / "folder")
    (partial / "b").mkdir()
    (partial / "b" / "lock").symlink_to(private / "folder" / "lock")
    bench("clean", "--abandoned", "--runs", str(store.root), code=3)
    assert not (partial / "a").exists() and (private / "folder" / "lock").read_text() == "the user's own"
    (partial / ".chain.lock").symlink_to(private / "folder" / "lock")
    with pytest.raises(OSError, match="symbolic link"):
        chain.append(store.root, record(spec()))
    assert (private / "folder" / "lock").read_text() == "the user's own"


def test_a_bundle_leaves_out_files_that_are_larger_than_they_may_be(store: Store, tmp_path: Path) -> None:
    """A sparse file takes no space in a store, but would take a terabyte in a bundle."""
    folder = finish(store, spec())
    (folder / "code.json").touch()
    os.truncate(folder / "code.json", 1 << 40)
    pb.pack_bundle(tmp_path / "out.bundle.tar.zst", runs=store.root)
    packed = pb.open_runs(tmp_path / "out.bundle.tar.zst")
    assert not (packed.folder("pretrain", spec().key) / "code.json").exists() and len(list(packed.records())) == 1


@pytest.mark.parametrize("version", [{}, [1], "2", None, 1e300])
def test_a_version_that_is_none_is_an_unreadable_record(version: object, store: Store) -> None:
    path = finish(store, spec()) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema_version": version}))
    assert not list(store.records()) and "record.json" in store.unreadable()[0]


def test_an_endless_file_of_events_is_not_read(tmp_path: Path) -> None:
    """A sparse file of a tebibyte takes no room on the disk of whoever made it."""
    path = tmp_path / EVENTS_FILE
    path.touch()
    os.truncate(path, 1 << 40)
    assert list(read_events(path)) == []
    with pytest.raises(OSError, match="larger than 256 MiB"):
        broken_line(path)
