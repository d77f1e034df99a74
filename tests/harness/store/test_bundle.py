"""Bundles read like a folder of runs: quickly, once, untrusted, and read-only."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.audit.audit import AuditOptions, audit
from pretrain_bench.harness.audit.pack import PackOptions, pack
from pretrain_bench.harness.contract.events import EVENTS_FILE, MAX_LINE_BYTES
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.store import bundle, short_events
from pretrain_bench.harness.store.bundle import bundle_name, is_bundle, open_store
from pretrain_bench.harness.store.store import CODE, CONFUSION, RECORD, SPEC, Store
from tests.conftest import REPOSITORY, Bench
from tests.harness.store.bundles import contents, members, repack, unpacked

STUDY = REPOSITORY / "docs/study"
SMOKE = STUDY / "smoke.bundle.tar.zst"

EVENTS = next(name for name in members(SMOKE) if name.endswith(EVENTS_FILE))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def listed(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """Files of a bundle with a matching file list."""
    kept = {n: c for n, c in files.items() if n != bundle.CONTENTS}
    contents = json.loads(files[bundle.CONTENTS]) | {"files": {n: sha256(c).hexdigest() for n, c in kept.items()}}
    return {**kept, bundle.CONTENTS: json.dumps(contents | changes).encode()}


def test_a_bundle_is_unpacked_once(own_cache: Path) -> None:
    store = open_store(STUDY / "tiny.bundle.tar.zst")
    assert len(list(store.records())) == 75
    changed = store.root.stat().st_ctime_ns
    assert open_store(STUDY / "tiny.bundle.tar.zst").root == store.root and store.root.stat().st_ctime_ns == changed
    assert [p.parent for p in own_cache.glob("bundles/*/chain.jsonl")] == [store.root], "nothing half unpacked is left"
    assert not [p for p in store.root.rglob("*") if p.is_file() and p.stat().st_mode & 0o222]


def test_a_bundle_becomes_a_folder_of_runs_again(bench: Bench, tmp_path: Path) -> None:
    said = bench("unpack", str(SMOKE), "--runs", "runs").stdout
    assert said.strip() == f"runs: 19 runs of {SMOKE}"
    store = Store(tmp_path / "runs")
    assert {r.sha256 for r in store.records()} == {r.sha256 for r in open_store(SMOKE).records()}
    assert not list(store.root.rglob("bundle.json*")) and not list(tmp_path.glob(".runs*")), (
        "nothing of the bundle itself"
    )
    store.check_writable()
    findings = json.loads(bench("audit", "--runs", "runs", "--json").stdout)
    assert not [f for f in findings if f["verdict"] == "failed"]
    bench("clean", "--runs", "runs", "--keep", "none")
    again = json.loads(bench("unpack", str(SMOKE), "--runs", "new/runs", "--json").stdout)
    assert again == {"runs": str(tmp_path / "new/runs"), "number": 19}


def test_only_a_bundle_is_unpacked_and_only_into_a_new_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine.txt").write_text("x")
    taken = bench("unpack", str(SMOKE), code=2).stderr
    assert taken.strip() == f"error: {tmp_path}/runs exists and is not empty; name a new folder with --runs FOLDER"
    for other in (tmp_path / "runs", tmp_path / "runs/mine.txt", tmp_path / "none.tar.zst"):
        refused = bench("unpack", str(other), "--runs", "new", code=2).stderr
        assert str(other) in refused and "bundle" in refused and not (tmp_path / "new").exists()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["mine.txt"]


def test_an_unpacked_bundle_that_lost_a_file_is_unpacked_again(own_cache: Path) -> None:
    store = open_store(STUDY / "smoke.bundle.tar.zst")
    records = len(list(store.records()))
    shutil.rmtree(next((store.root / "finetune").iterdir()))
    again = open_store(STUDY / "smoke.bundle.tar.zst")
    assert again.root == store.root and len(list(again.records())) == records
    assert store.root.stat().st_mode & 0o055 == 0o055, "other users of the cache may read it"


def test_a_bundle_holds_all_that_its_store_held() -> None:
    store = open_store(SMOKE)
    assert store.bundle == SMOKE and store.place == SMOKE and not store.unreadable()
    for record in store.records():
        folder = store.folder(record.kind, record.key)
        expected = {RECORD, SPEC, CODE, EVENTS_FILE, "log.txt", "pruned.json", "attempts"}
        assert {p.name for p in folder.iterdir()} == expected | ({CONFUSION} if record.kind == "finetune" else set())
        assert store.spec(record.kind, record.key).method == record.method  # raises if it does not hash to the key


@pytest.mark.usefixtures("undrawn")
def test_every_reading_command_takes_a_bundle(bench: Bench, tmp_path: Path) -> None:
    runs = ("--runs", str(SMOKE))
    records = json.loads(bench("show", *runs, "--json").stdout)
    assert len(records) == 19
    assert records[0]["key"] in bench("show", records[0]["key"][:8], *runs).stdout
    assert json.loads(bench("status", *runs, "--json").stdout) == {
        "under_way": [], "outcomes": {"ok": 19}, "commands": [],
    }  # fmt: skip
    bench("report", *runs, "--no-page", "--out", str(tmp_path / "report"))
    assert "10.5" in (tmp_path / "report/tables/synthetic-ratios1.md").read_text()
    by_path, by_runs = (json.loads(bench("audit", *how, "--json").stdout) for how in ((str(SMOKE),), runs))
    assert by_path == by_runs and not [f for f in by_path if f["verdict"] == "failed"]


def test_commands_that_write_refuse_a_bundle(bench: Bench) -> None:
    words = "bundles are read-only; name a folder of runs to write to with --runs FOLDER"
    run = ("run", "--method", "scratch", "--task", "s3dis-sem", "--budget", "smoke")
    assert words in bench(*run, "--runs", str(SMOKE), code=2).stderr
    assert words in bench("clean", "--keep", "none", "--runs", str(SMOKE), code=2).stderr
    assert "does not change" in bench("report", "--watch", "--runs", str(SMOKE), code=2).stderr
    for store in (open_store(SMOKE), Store(SMOKE)):
        with pytest.raises(WrongUse, match=words):
            store.check_writable()


def test_packed_again_it_is_the_same_bundle(tmp_path: Path) -> None:
    """A store with pruned predictions is packed without their counts, and everything that it holds is byte-identical."""
    folder = Path(shutil.copytree(open_store(SMOKE).root, tmp_path / "runs"))
    for name in (bundle.CONTENTS, *(str(p.relative_to(folder)) for p in folder.glob("*/*/counts.json"))):
        (folder / name).unlink()
    done = audit(folder, AuditOptions(rescore=False), Silent())
    pack(done.runs, folder, tmp_path / "again.tar.zst", PackOptions(), print)
    again, packed = contents(open_store(tmp_path / "again.tar.zst").root), contents(open_store(SMOKE).root)
    assert again.pop(bundle.CONTENTS) != packed.pop(bundle.CONTENTS), "they are of different formats"
    assert again == packed


def test_events_are_packed_without_running_hashes_and_unpacked_with_them(tmp_path: Path) -> None:
    root, packed = tmp_path / "runs", tmp_path / "packed.tar.zst"
    events = {n: c for n, c in members(STUDY / "probe-tiny.bundle.tar.zst").items() if n.startswith("pretrain")}
    events = dict(sorted((n, c) for n, c in events.items() if n.endswith(EVENTS_FILE) and len(c) > 50_000)[:4])
    damaged, cut, *_ = events
    events[damaged] = b"x" + events[damaged]  # the second line does not continue the first
    events[cut] = events[cut][:-1]
    for name, content in events.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(content)
    bundle.write_archive(root, packed)
    names = set(members(packed))
    assert names == {damaged, *(f"{name}.short" for name in events if name != damaged)}
    assert not any(re.search(rb'"before":"[0-9a-f]{64}"', c) for n, c in members(packed).items() if n != damaged)
    assert unpacked(tmp_path / "packed.tar.zst", tmp_path / "unpacked") == contents(root)


@pytest.mark.parametrize(
    "events",
    [b"", b"\n", b'{"before":""}\n', b'{"before":"' + 64 * b"0" + b'"}\n', b"\r\n\n", b"x" * (MAX_LINE_BYTES + 1)],
    ids=["empty", "a break", "no hash", "a wrong hash", "other breaks", "too long"],
)
def test_events_that_no_stage_wrote_are_packed_as_they_are(events: bytes, tmp_path: Path) -> None:
    (tmp_path / "runs/finetune/key").mkdir(parents=True)
    (tmp_path / "runs/finetune/key/events.jsonl").write_bytes(events)
    bundle.write_archive(tmp_path / "runs", tmp_path / "packed.tar.zst")
    assert unpacked(tmp_path / "packed.tar.zst", tmp_path / "unpacked") == contents(tmp_path / "runs")


def test_short_events_that_grow_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lines, most in ((1000, 50_000), (2, 50)):
        monkeypatch.setattr(short_events, "MAX_FILE_BYTES", most)
        files = {"finetune/key/events.jsonl.short": lines * b'{"before":""}\n'}
        with pytest.raises(WrongUse, match=r"cannot be unpacked: events of more than"):
            open_store(repack(tmp_path / "bad.tar.zst", files))


def test_short_events_count_as_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ALWAYS_BYTES", 200_000)
    files = {"finetune/key/events.jsonl.short": 10_000 * b'{"before":""}\n'}
    with pytest.raises(WrongUse, match="cannot be unpacked: unpacks to more than is allowed"):
        open_store(repack(tmp_path / "bad.tar.zst", files))


def test_an_artifact_may_have_the_name_of_events(tmp_path: Path) -> None:
    for name in ("artifacts/events.jsonl", "artifacts/events.jsonl.short"):
        (tmp_path / "runs/finetune/key" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs/finetune/key" / name).write_bytes(b'{"before":""}\n' * 3)
    bundle.write_archive(tmp_path / "runs", tmp_path / "packed.tar.zst")
    assert unpacked(tmp_path / "packed.tar.zst", tmp_path / "unpacked") == contents(tmp_path / "runs")


def test_bundles_of_older_formats_are_read_and_newer_ones_are_not(tmp_path: Path) -> None:
    files = {n: c for n, c in members(SMOKE).items() if not n.endswith(CONFUSION)}
    assert json.loads(members(SMOKE)[bundle.CONTENTS])["format"] == 2 == bundle.FORMAT - 1
    assert len(list(open_store(repack(tmp_path / "old.tar.zst", listed(files, format=1))).records())) == 19
    with pytest.raises(WrongUse, match=r"made by a newer version \(format 4"):
        open_store(repack(tmp_path / "new.tar.zst", listed(files, format=4, more="x")))


def test_content_that_differs_from_the_list_is_refused(tmp_path: Path, own_cache: Path) -> None:
    files = members(SMOKE)
    name = next(n for n in files if n.endswith(EVENTS_FILE))
    for changed, problem in (
        ({**files, name: files[name] + b"x"}, f"{name} differs from its listed content"),
        ({n: c for n, c in files.items() if n != name}, f"{name} is listed but missing"),
        ({**files, "finetune/x/record.json": b"{}"}, "finetune/x/record.json is not listed"),
        ({n: c for n, c in files.items() if n != bundle.CONTENTS}, "is missing or damaged, so this is not a bundle"),
    ):
        with pytest.raises(WrongUse, match=problem):
            open_store(repack(tmp_path / "changed.tar.zst", changed))
        assert not list((own_cache / "bundles").iterdir())


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (member("../outside"), "not the name of a file in a store"),
        (member("/outside"), "not the name of a file in a store"),
        (member("finetune/../../outside"), "not the name of a file in a store"),
        (member("./finetune/key/x"), "not the name of a file in a store"),
        (member(".partial/key/lock"), "not the name of a file in a store"),
        (member("bundle.json"), "twice"),
        (member(f"{EVENTS}.short"), f"holds '{EVENTS}' twice"),
        (member("finetune/../../events.jsonl.short"), "not the name of a file in a store"),
        (member("bundle.json/x"), "cannot be unpacked"),
        (member("finetune/link", tarfile.SYMTYPE, "/etc/passwd"), "not a plain file"),
        (member("finetune/link", tarfile.LNKTYPE, "bundle.json"), "not a plain file"),
        (member("finetune/folder", tarfile.DIRTYPE), "not a plain file"),
        (member("finetune/pipe", tarfile.FIFOTYPE), "not a plain file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_a_hostile_member_is_refused(entry: tarfile.TarInfo, problem: str, tmp_path: Path, own_cache: Path) -> None:
    archive = repack(tmp_path / "bad.tar.zst", members(SMOKE), [entry])
    with pytest.raises(WrongUse, match=problem):
        open_store(archive)
    assert not list((own_cache / "bundles").iterdir()) and not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "name", [".", "./", "..", "a/..", "finetune/..", "finetune/.", "", "/", "finetune/x/", "finetune//x"]
)
def test_a_member_without_a_plain_name_is_refused(name: str, tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "canary").write_text("untouched")
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    for kind, problem in (
        (tarfile.REGTYPE, "is not the name of a file in a store"),
        (tarfile.DIRTYPE, "is not a plain file"),
    ):
        archive = repack(tmp_path / "bad.tar.zst", {"finetune/key/x": b"x"}, [member(name, kind)])
        read = name.rstrip("/") if kind == tarfile.DIRTYPE else name
        with pytest.raises(WrongUse, match=re.escape(f"{archive}: {read!r} {problem}")):
            open_store(archive)
        archive.unlink()
    own_cache.rename(tmp_path / "emptied")
    assert not list((tmp_path / "emptied/bundles").iterdir())
    shutil.rmtree(tmp_path / "emptied")
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.iterdir()) == before


def test_archives_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    bomb = repack(tmp_path / "bomb.tar.zst", {"finetune/zeros": bytes(100 << 20)})
    with pytest.raises(WrongUse, match="unpacks to more than"):
        open_store(bomb)
    # tarfile reads extended headers of any size into memory.
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 100 << 20
    (tmp_path / "header.tar.zst").write_bytes(
        zstandard.ZstdCompressor().compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(100 << 20))
    )
    with pytest.raises(WrongUse, match="the header of a member is larger"):
        open_store(tmp_path / "header.tar.zst")


def test_a_file_that_is_not_a_bundle_is_refused(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "text").write_text("no archive")
    for command in (("show",), ("status",), ("report",), ("audit",)):
        assert "text: cannot be unpacked" in bench(*command, "--runs", "text", code=2).stderr
    assert open_store(tmp_path / "nothing").root == tmp_path / "nothing", "a folder that is not there yet"
    assert not is_bundle(tmp_path / "text") and is_bundle(SMOKE) and bundle_name(SMOKE) == "smoke"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentCannot, match="BENCH_CACHE names another cache"):
        open_store(SMOKE)


def test_a_bundle_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> tuple[int, str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(bundle, "size_and_sha256", denied)
    with pytest.raises(WrongUse, match="cannot be read: Permission denied"):
        open_store(SMOKE)
