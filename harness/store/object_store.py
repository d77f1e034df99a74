"""Runs in a bucket of an object store: finished runs are published there and read through a local mirror.

<url>/objects/<sha256>                       one file of runs by its content, so that equal files are stored once
<url>/runs/<kind>/<key>/<attempt>.json       the files of a finished run, by hash; the last attempt counts

An object store has no rename. A run becomes visible with its list, which is written last and only if it does not exist. Readers
therefore see a list with all its files or no list, and of two writers of one attempt the first counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder, remove_tree, size_and_sha256, sync_tree
from pretrain_bench.benchmarks.support.foreign_files import is_name_below
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import KINDS, RECORD, Store, json_bytes, read_record

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_URL = re.compile(r"^s3:/+(?P<place>[^/].*?)/*$")
_LIST = re.compile(r"^runs/(?P<kind>\w+)/(?P<key>[0-9a-f]{20})/(?P<attempt>[0-9]{6})\.json$")


Listing = dict[tuple[str, str], int]
"""Kind and key of the runs in a bucket, with their last attempt."""


class FileList(Spec):
    """The files of a run: path in its folder to sha256."""

    files: dict[str, Sha256]


class ObjectStore(NamedTuple):
    """A place in a bucket, with the `url` as the user wrote it."""

    url: str
    files: Any
    """An fsspec file system."""
    root: str

    def lists(self) -> Listing:
        """Kind and key of every run, with its last attempt; the listing is paged."""
        last: Listing = {}
        for name in self.files.find(f"{self.root}/runs"):
            if (match := _LIST.match(name.removeprefix(f"{self.root}/"))) and match["kind"] in KINDS:
                run = (match["kind"], match["key"])
                last[run] = max(last.get(run, 0), int(match["attempt"]))
        return last

    def list_of(self, kind: str, key: str, attempt: int) -> str:
        """The path of a run's list."""
        return f"{self.root}/runs/{kind}/{key}/{attempt:06d}.json"

    def object(self, sha256: str) -> str:
        """The path of a file by its content."""
        return f"{self.root}/objects/{sha256}"


def remote_url(path: object) -> str | None:
    """The URL in a path: `s3://bucket/prefix`, even after pathlib has removed one slash; None for a folder."""
    match = _URL.match(str(path))
    return f"s3://{match['place']}" if match else None


def mirror_of(url: str) -> Path:
    """The local mirror of a bucket, in the cache: runs read from it and runs to be published."""
    return cache_folder() / "object-stores" / hashlib.sha256(url.encode()).hexdigest()[:20]


def open_mirror(url: str) -> Store:
    """Open the runs in a bucket for reading, after fetching new ones. Raises as `connect` and `pull`."""
    mirror = mirror_of(url)
    pull(connect(url), mirror)
    return Store(mirror, bundle=Path(url))


def connect(url: str) -> ObjectStore:
    """Open a bucket; credentials and endpoint are those of boto (AWS_PROFILE, AWS_ENDPOINT_URL, ...).

    Raises EnvironmentCannot if the extra `s3` is not installed.
    """
    try:
        import fsspec
        import s3fs  # noqa: F401
    except ImportError:
        raise EnvironmentCannot(
            f"--runs {url}: s3fs is not installed; install the extra: pip install '.[s3]'"
        ) from None
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return ObjectStore(url, files, root)


def count_runs(url: str) -> int:
    """The number of runs in a bucket. Raises EnvironmentCannot if it cannot be used."""
    store = connect(url)
    with _answering(url):
        return len(store.lists())


def pull(store: ObjectStore, mirror: Path) -> Listing:
    """Fetch the runs that a mirror lacks, each checked and then visible by one rename, with a line in the mirror's chain. Returns
    the runs of the bucket.

    Raises WrongUse for a damaged list or file, and EnvironmentCannot for an unreadable bucket.
    """
    local = Store(mirror)
    mirror.mkdir(parents=True, exist_ok=True)
    with _answering(store.url):
        listed = store.lists()
        for (kind, key), attempt in listed.items():
            held = local.record(kind, key)
            if (held is not None and held.attempt >= attempt) or local.held_by(key):
                continue
            with local.lock(key, lambda _: None) as partial:
                complete = partial / f"complete-{kind}"
                _fetch(store, store.list_of(kind, key, attempt), complete)
                record = read_record(complete / RECORD)
                if (record.kind, record.key, record.attempt) != (kind, key, attempt):
                    remove_tree(complete)
                    raise WrongUse(
                        f"s3://{store.list_of(kind, key, attempt)}: lists the files of {record.kind}/{record.key}"
                    )
                local.admit(record)
    return listed


def _fetch(store: ObjectStore, name: str, folder: Path) -> None:
    """Fetch the files of a list into a new folder."""
    try:
        listed = FileList.model_validate_json(store.files.cat_file(name)).files
    except ValidationError as error:
        raise WrongUse(f"s3://{name}: not a list of files: {error.errors()[0]['msg']}") from None
    remove_tree(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetched-") as temporary:
        for path, sha256 in listed.items():
            if not is_name_below(path):
                raise WrongUse(f"s3://{name}: {path!r} is not the name of a file in a run")
            target = Path(temporary) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            store.files.get_file(store.object(sha256), str(target))
            if size_and_sha256(target)[1] != sha256:
                raise WrongUse(
                    f"s3://{store.object(sha256)}: its content does not match its name; remove {name} and rerun the stage"
                )
        sync_tree(Path(temporary))
        os.rename(temporary, folder)
        Path(temporary).mkdir()  # for the end of the block


def publish(store: ObjectStore, mirror: Path, listed: Listing) -> int:
    """Publish every finished run of a mirror that the bucket, whose runs are `listed`, lacks; returns how many. Raises
    EnvironmentCannot."""
    fresh = [r for r in Store(mirror).records() if listed.get((r.kind, r.key), 0) < r.attempt]
    for record in fresh:
        publish_run(store, mirror, record)
    return len(fresh)


def publish_run(store: ObjectStore, mirror: Path, record: Record) -> None:
    """Publish one finished run: first its files, then their list, unless another process has published this attempt."""
    folder = Store(mirror).folder(record.kind, record.key)
    files = {}
    with _answering(store.url):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            _, sha256 = size_and_sha256(path)
            files[path.relative_to(folder).as_posix()] = sha256
            if not store.files.exists(store.object(sha256)):
                store.files.put_file(str(path), store.object(sha256))
        content = json_bytes(FileList(files=files).model_dump(mode="json"))
        with contextlib.suppress(FileExistsError):
            store.files.pipe_file(store.list_of(record.kind, record.key, record.attempt), content, mode="create")


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """Convert exceptions of s3fs for an unusable bucket to EnvironmentCannot."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, PermissionError, FileNotFoundError, ConnectionError) as error:
        raise EnvironmentCannot(
            f"--runs {url}: the bucket cannot be used: {error}; check its name, the credentials and AWS_ENDPOINT_URL"
        ) from error
