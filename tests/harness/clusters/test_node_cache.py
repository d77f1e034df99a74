"""Copies of prepared data on a node: made once, compared with their hashes, removed by last use, never while in use."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.datasets.layout import MANIFEST
from pretrain_bench.harness.clusters import node_cache
from pretrain_bench.harness.clusters.node_cache import GIB, NodeCache, local_copy
from pretrain_bench.harness.clusters.ticket import Ticket
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.store.store import Store
from tests.harness.clusters.fake import FakeCluster, run_on


@pytest.fixture
def data(cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedDataset:
    """Prepared rooms in a folder that the test may damage, and a process that uses no copy yet."""
    shared = cells[0].stages[-1].data
    assert shared is not None
    monkeypatch.setattr(node_cache, "_in_use", {})
    return shared._replace(folder=Path(shutil.copytree(shared.folder, tmp_path / "shared")))


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files by relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def other(data: PreparedDataset, number: int) -> PreparedDataset:
    """The same files under another manifest."""
    manifest = data.manifest.model_copy(update={"problems": ("a problem",) * number})
    return data._replace(manifest=manifest)


def users_end() -> None:
    """As if the processes that use copies had ended."""
    for file in node_cache._in_use.values():
        file.close()
    node_cache._in_use.clear()


def test_a_copy_is_made_once_and_whole(
    data: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    cache = NodeCache(folder="$NODE_DISK/bench")
    copy = local_copy(cache, data).folder
    assert copy.is_relative_to(tmp_path / "disk/bench/copies")
    assert files(copy) == {name: files(data.folder)[name] for name in [*data.manifest.files, MANIFEST]}
    shutil.rmtree(data.folder)
    users_end()
    assert local_copy(cache, data).folder == copy, "the shared data are not read again"
    assert not (tmp_path / "disk/bench/unfinished").exists() and not capsys.readouterr().out


def test_the_oldest_copies_make_room_unless_a_process_uses_them(
    data: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sum(entry.bytes for entry in data.manifest.files.values()) + (data.folder / MANIFEST).stat().st_size
    cache = NodeCache(folder=str(tmp_path / "disk"), gib=2.5 * one / GIB)
    first, second = (local_copy(cache, other(data, n)).folder for n in (1, 2))
    for age, copy in ((100, first), (200, second)):
        os.utime(tmp_path / "disk/uses" / copy.name, (age, age))
    third = other(data, 3)
    assert local_copy(cache, third).folder == data.folder, (
        "both are in use by this process, so the shared data are read"
    )
    assert "it does not fit into the limit of node_cache" in capsys.readouterr().out
    users_end()
    with (tmp_path / "disk/uses" / first.name).open("ab") as user:
        fcntl.flock(user, fcntl.LOCK_SH)
        made = local_copy(cache, third).folder
    assert made.is_dir() and first.is_dir() and not second.exists(), "the oldest one is in use, so the next one goes"


@pytest.mark.parametrize("fault", ["changed", "missing", "no room", "no folder"])
def test_what_cannot_be_copied_is_read_from_the_shared_folder(
    data: PreparedDataset, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = next(iter(data.manifest.files))
    if fault == "changed":
        (data.folder / name).write_bytes(b"other content")
    if fault == "missing":
        (data.folder / name).unlink()
    cache = NodeCache(
        folder="$UNSET_VARIABLE/x" if fault == "no folder" else str(tmp_path / "disk"),
        gib=1e-9 if fault == "no room" else 1,
    )
    assert local_copy(cache, data).folder == data.folder
    said = capsys.readouterr().out
    assert "s3dis: read from" in said and "without a copy on this node" in said
    expected = {
        "changed": "differs from its manifest",
        "missing": "No such file",
        "no room": "does not fit",
        "no folder": "is not an absolute path",
    }
    assert expected[fault] in said
    assert not list((tmp_path / "disk").glob("copies/*")) and not (tmp_path / "disk/unfinished").exists()


def test_stages_of_a_cluster_read_the_copy(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_cache, "_in_use", {})
    (tmp_path / "runs").mkdir()
    store, seen = Store(tmp_path / "runs"), set[Path]()
    place = FakeCluster(store)
    place.job = place.job.model_copy(update={"node_cache": NodeCache(folder=str(tmp_path / "disk"))})
    ready = Ticket.ready

    def watched(ticket: Ticket, manifests: dict[Path, PreparedDataset]) -> object:
        stage = ready(ticket, manifests)
        if stage.data is not None:
            seen.add(stage.data.folder)
        return stage

    monkeypatch.setattr(Ticket, "ready", watched)
    reports = run_on(place, store, cells)
    assert {r.record.outcome for r in reports} == {"ok"}
    assert seen == set((tmp_path / "disk/copies").iterdir()) and seen
