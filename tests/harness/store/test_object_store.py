"""Runs in a bucket, with a real S3 server on this machine (moto).

Skipped without moto and s3fs, unless BENCH_REQUIRE_MOTO=1, which makes their absence a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

import pretrain_bench as pb
from pretrain_bench.api import stores
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.store.object_store import (
    ObjectStore,
    connect,
    mirror_of,
    publish,
    publish_run,
    pull,
    remote_url,
)
from pretrain_bench.harness.store.store import Store
from tests.conftest import NANO, Bench
from tests.faults.in_process import SleepingInProcess
from tests.harness.running.sleeping import run

WITHOUT = find_spec("moto") is None or find_spec("s3fs") is None
needs_moto = pytest.mark.skipif(
    WITHOUT and os.environ.get("BENCH_REQUIRE_MOTO") != "1",
    reason="moto and s3fs are not installed (pip install -r requirements-cluster.lock; BENCH_REQUIRE_MOTO=1 makes this a failure)",
)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A server with pages of three keys, and credentials for boto."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.get_host_and_port()[1]}")
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        yield
        moto.stop()


@pytest.fixture
def url(server: None, tmp_path: Path) -> str:
    """A prefix in a new bucket."""
    bucket = f"b{abs(hash(tmp_path)) % 10**9}"
    connect(f"s3://{bucket}/runs").files.mkdir(bucket)
    return f"s3://{bucket}/a/b"


@pytest.fixture(scope="module")
def finished(cells: list[PlannedCell], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two pre-trainings and two fine-tunings."""
    runs = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_TEST_SLEEP", "0")
        run([cells[0], cells[-1]], runs, SleepingInProcess())
    return runs


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the files of all runs in a store."""
    files = (p for kind in ("pretrain", "finetune") for p in (folder / kind).rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): size_and_sha256(p)[1] for p in files}


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://b/p", "s3://b/p"),
        (Path("s3://b/p/q/"), "s3://b/p/q"),
        ("runs", None),
        (Path("s3/b"), None),
        ("s3:", None),
    ],
)
def test_buckets_and_folders_are_distinguished(path: str | Path, url: str | None) -> None:
    assert remote_url(path) == url


def test_commands_that_write_elsewhere_refuse_a_bucket_and_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(WrongUse, match="only `bench run` writes to a bucket"):
        pb.pack_bundle(tmp_path / "b.tar.zst", "s3://bucket/runs")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(EnvironmentCannot, match=r"pip install '\.\[s3\]'"):
        pb.open_runs("s3://bucket/runs")


def test_a_command_lists_a_bucket_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.exceptions"):  # boto comes with the extra only
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(BotoCoreError=OSError, ClientError=OSError))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    bucket, listed = ObjectStore("s3://b/p", fsspec.filesystem("memory"), "/b/p"), list[str]()
    monkeypatch.setattr(stores, "connect", lambda url: bucket)
    monkeypatch.setattr(ObjectStore, "lists", lambda self: [listed.append(self.url), {}][1])
    store, _ = stores.working_store("s3://b/p")
    assert store.root == mirror_of("s3://b/p") and listed == ["s3://b/p"]


@needs_moto
@pytest.mark.slow
def test_what_was_published_is_read_back_bit_for_bit(url: str, finished: Path, tmp_path: Path) -> None:
    bucket = connect(url)
    assert publish(bucket, finished, bucket.lists()) == 4 and publish(bucket, finished, bucket.lists()) == 0
    names = [name.removeprefix(f"{bucket.root}/") for name in bucket.files.find(bucket.root)]
    objects = {name.removeprefix("objects/") for name in names if name.startswith("objects/")}
    assert objects == set(contents(finished).values()) and len(names) == len(objects) + 4, "more than one page"
    pull(bucket, tmp_path / "mirror")
    assert contents(tmp_path / "mirror") == contents(finished)
    failed = {finding.check for finding in pb.audit(tmp_path / "mirror", rescore=False).failed}
    assert failed == {finding.check for finding in pb.audit(finished, rescore=False).failed}
    assert not list((tmp_path / "mirror/.partial").glob("[!.]*"))


@needs_moto
@pytest.mark.slow
def test_a_run_is_visible_with_its_list_only_and_the_first_list_counts(
    url: str, finished: Path, tmp_path: Path
) -> None:
    bucket, record = connect(url), next(Store(finished).records())

    class Cut(Exception):
        pass

    class WithoutLists:
        def __getattr__(self, name: str) -> object:
            return getattr(bucket.files, name)

        def pipe_file(self, *_: object, **__: object) -> None:
            raise Cut

    with pytest.raises(Cut):
        publish_run(ObjectStore(url, WithoutLists(), bucket.root), finished, record)
    pull(bucket, tmp_path / "early")
    assert not contents(tmp_path / "early") and not bucket.lists()
    publish_run(bucket, finished, record)
    listed = bucket.files.cat_file(bucket.list_of(record.kind, record.key, record.attempt))
    shutil.copytree(finished, tmp_path / "other")
    (tmp_path / "other" / record.kind / record.key / "log.txt").write_text("another machine's")
    publish_run(bucket, tmp_path / "other", record)
    assert bucket.files.cat_file(bucket.list_of(record.kind, record.key, record.attempt)) == listed
    again = record.model_copy(update={"attempt": 2})
    publish_run(bucket, finished, again)
    assert bucket.lists()[record.kind, record.key] == 2


@needs_moto
@pytest.mark.slow
def test_damage_is_named_and_leaves_no_run(url: str, finished: Path, tmp_path: Path) -> None:
    bucket = connect(url)
    publish(bucket, finished, {})
    record = next(Store(finished).records())
    name = bucket.list_of(record.kind, record.key, record.attempt)
    files = json.loads(bucket.files.cat_file(name))["files"]
    bucket.files.pipe_file(bucket.object(files["log.txt"]), b"damaged")
    with pytest.raises(WrongUse, match="its content does not match its name"):
        pull(bucket, tmp_path / "mirror")
    assert Store(tmp_path / "mirror").record(record.kind, record.key) is None
    bucket.files.put_file(str(finished / record.kind / record.key / "log.txt"), bucket.object(files["log.txt"]))
    for wrong in ("../../outside", "/etc/outside"):
        bucket.files.pipe_file(name, json.dumps({"files": {wrong: files["record.json"]}}).encode())
        with pytest.raises(WrongUse, match="is not the name of a file in a run"):
            pull(bucket, tmp_path / "mirror")
    with pytest.raises(EnvironmentCannot, match="the bucket cannot be used"):
        pb.open_runs("s3://no-such-bucket/runs")


@needs_moto
@pytest.mark.slow
def test_commands_run_show_report_and_audit_a_bucket(
    url: str, bench: Bench, s3dis_root: Path, tmp_path: Path, undrawn: None
) -> None:
    cell = (
        "run",
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
        "--data",
        f"s3dis={s3dis_root}",
        *NANO,
        "--threads",
        "1",
    )
    bench(*cell, "--executor", "local", "--runs", url)
    assert len(connect(url).lists()) == 2
    shutil.rmtree(mirror_of(url))  # as on another machine
    key = json.loads(bench("show", "--runs", url, "--json").stdout)[0]["key"]
    assert "scratch" in bench("show", key, "--runs", url).stdout
    bench("report", "--runs", url, "--out", "report")
    assert (tmp_path / "report/index.html").is_file()
    audit = bench("audit", "--runs", url, code=1).stdout
    assert audit.count("failed: ") == 1 and "failed: the whole test split is scored" in audit, (
        "small data, nothing else"
    )
    assert "nothing to do" in bench(*cell, "--executor", "local", "--runs", url).stdout
