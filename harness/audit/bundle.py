"""A store packed for a reviewer (design section 13): records, specs, events, predictions and counts; no labels, points, images or
weights. Unpacked without trust: tar's data filter, and caps on size and count."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.metrics.scorer import metrics_of_counts
from pretrain_bench.benchmarks.support.errors import DataError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.rescore import find_data
from pretrain_bench.harness.audit.static import AuditedRun
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import canonical_json
from pretrain_bench.harness.running.scoring import counts_of, scorer_for
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import ARTIFACTS, ATTEMPTS, CODE, LOG, RECORD, SPEC

FORMAT = 1
CONTENTS, COUNTS, SIGNATURE = "bundle.json", "counts.json", "bundle.json.sig"
NAMESPACE = "pretrain-bench"
MAX_BYTES, MAX_FILES = 8 << 30, 2_000_000
MAX_RATIO = 200
"""A member may unpack to so many times the bytes of the whole archive."""
PRUNED_BY = "not in the bundle"


def pack(
    runs: dict[str, AuditedRun],
    root: Path,
    target: Path,
    *,
    anonymous: bool,
    sign: Path | None,
    say: Callable[[str], None],
) -> str:
    """Write `target`, a tar.zst; returns the Merkle root over all records. Raises EnvironmentCannot where it cannot be signed."""
    import zstandard

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hashes = _lay_out(runs, root, folder, anonymous, say)
        files = {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }
        root_hash = chain.merkle_root(hashes)
        content = {
            "format": FORMAT,
            "anonymous": anonymous,
            "records": len(hashes),
            "merkle_root": root_hash,
            "files": files,
        }
        (folder / CONTENTS).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        if sign is not None:
            _sign(folder / CONTENTS, sign)
        temporary = target.with_name(target.name + ".tmp")
        with (
            temporary.open("wb") as file,
            zstandard.ZstdCompressor(level=10).stream_writer(file) as stream,
            tarfile.open(fileobj=stream, mode="w|") as archive,
        ):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    _add(archive, path.relative_to(folder).as_posix(), path.read_bytes())
        temporary.replace(target)
    return root_hash


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """One member without times, owners or modes of this machine."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _lay_out(
    runs: dict[str, AuditedRun], root: Path, folder: Path, anonymous: bool, say: Callable[[str], None]
) -> list[str]:
    """Copy what belongs into a bundle; returns the hashes of the records that count."""
    salt = secrets.token_hex(8)
    renamed: dict[str, str] = {}
    sources: dict[str, Any] = {}
    hashes = []
    for run in runs.values():
        into = folder / run.record.kind / run.record.key
        into.mkdir(parents=True)
        for path in sorted((run.folder / ATTEMPTS).glob(f"*/{RECORD}")):
            record = Record.model_validate_json(path.read_bytes())
            kept = _anonymous(record, salt) if anonymous else record
            renamed[record.sha256] = kept.sha256
            _write(into / ATTEMPTS / path.parent.name / RECORD, kept.model_dump(mode="json"))
            if record.attempt == run.record.attempt:
                _write(into / RECORD, kept.model_dump(mode="json"))
                hashes.append(kept.sha256)
        for name in (SPEC, CODE, EVENTS_FILE, LOG, "pruned.json"):
            if name == LOG and anonymous:
                continue  # a log is free text
            if (run.folder / name).is_file():
                (into / name).write_bytes((run.folder / name).read_bytes())
        left_out = {}
        for name in run.record.artifacts:
            path = run.folder / ARTIFACTS / name
            if name.startswith("predictions/") and path.is_file():
                (into / ARTIFACTS / name).parent.mkdir(parents=True, exist_ok=True)
                (into / ARTIFACTS / name).write_bytes(path.read_bytes())
            elif path.is_file():
                left_out[name] = PRUNED_BY
        if left_out:
            noted = json.loads((into / "pruned.json").read_text()) if (into / "pruned.json").is_file() else {}
            _write(into / "pruned.json", {**noted, **left_out})
        counts = _counts(run, sources, say)
        if counts is not None:
            _write(into / COUNTS, counts)
    found = chain.read(root)
    if found is not None:
        # A line whose run is gone stays: it is just what a reviewer should see.
        links = [
            k.model_copy(update={"record_sha256": renamed.get(k.record_sha256, k.record_sha256)}) for k in found.links
        ]
        chain.write(folder, links)
    return hashes


def _anonymous(record: Record, salt: str) -> Record:
    """A record without host and git identity: hashed with a number that is thrown away."""

    def hidden(text: str | None) -> str | None:
        return None if text is None else hashlib.sha256(f"{salt}{text}".encode()).hexdigest()[:12]

    known = record.provenance
    provenance = known.model_copy(update={"machine": hidden(known.machine), "git_commit": hidden(known.git_commit)})
    return record.model_copy(update={"provenance": provenance}).sealed()


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _counts(run: AuditedRun, sources: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any] | None:
    """Per checkpoint and test scene the counts, from which every metric follows; None without the data."""
    spec = run.spec
    if spec.kind != "finetune" or run.record.outcome != Outcome.ok or spec.data is None or spec.split is None:
        return None
    which = canonical_json([spec.data.model_dump(), spec.split.test, spec.model_dump(mode="json")["recipe"]])
    if which not in sources:
        source = find_data(spec.data, say)
        sources[which] = None if isinstance(source, str) else scorer_for(spec, source.folder)
    scorer = sources[which]
    if scorer is None:
        return None
    found: dict[str, Any] = {}
    for checkpoint in CHECKPOINTS:
        with contextlib.suppress(DataError):
            found[checkpoint] = counts_of(scorer, run.folder / ARTIFACTS / "predictions" / checkpoint, spec.split.test)
    return found


def _sign(path: Path, key: Path) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise EnvironmentCannot("--sign needs ssh-keygen (OpenSSH), which is not installed") from None
    if done.returncode != 0:
        raise EnvironmentCannot(f"--sign {key.name}: {done.stderr.strip() or 'ssh-keygen failed'}")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a bundle into an empty folder. Raises WrongUse for one that is damaged, too large, or holds anything but plain files
    with relative names."""
    import zstandard

    limit = min(MAX_BYTES, max(64 << 20, MAX_RATIO * archive.stat().st_size))
    total = count = 0
    try:
        with (
            archive.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as stream,
            tarfile.open(fileobj=stream, mode="r|") as members,
        ):
            for member in members:
                total, count = total + member.size, count + 1
                if total > limit or count > MAX_FILES:
                    raise WrongUse(f"{archive}: unpacks to more than {limit:,} bytes or {MAX_FILES:,} files")
                if not member.isfile():
                    raise WrongUse(f"{archive}: {member.name!r} is not a plain file")
                members.extract(member, folder, filter="data")
    except (tarfile.TarError, zstandard.ZstdError, OSError, EOFError) as error:
        raise WrongUse(f"{archive}: cannot be unpacked: {error}") from None


def check_contents(folder: Path, tally: Tally) -> dict[str, Any]:
    """Compare an unpacked bundle with its own list of files. Raises WrongUse where it has none."""
    try:
        content = json.loads((folder / CONTENTS).read_bytes())
        files = dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUse(f"{CONTENTS}: missing or damaged, so this is not a bundle: {error}") from None
    check = "bundle holds what it lists"
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {CONTENTS, SIGNATURE}
    for name in sorted(set(files) - there):
        tally.expect(check, False, name, "is listed and not there")
    for name in sorted(there - set(files)):
        tally.expect(check, False, name, "is there and not listed")
    for name in sorted(there & set(files)):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        tally.expect(check, digest == files[name], name, "has another content than listed")
    return content


def check_merkle(content: dict[str, Any], runs: dict[str, AuditedRun], tally: Tally) -> None:
    """The root over the records that are there is the one that was packed."""
    found = chain.merkle_root(r.record.sha256 for r in runs.values()) if runs else ""
    tally.expect(
        "Merkle root over the records", found == content.get("merkle_root"), "bundle", f"comes out as {found[:16]}…"
    )


def check_signature(folder: Path, signers: Path | None, identity: str | None, tally: Tally) -> None:
    """Whether the list of files was signed, and by whom it should have been."""
    check = "signature"
    if not (folder / SIGNATURE).is_file():
        tally.note(check, "not checked" if signers is None else "failed", "bundle", "is not signed")
        return
    if signers is None or identity is None:
        tally.note(check, "not checked", "bundle", "is signed; --signers FILE --signer NAME says by whom it should be")
        return
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(signers),
        "-I",
        identity,
        "-n",
        NAMESPACE,
        "-s",
        str(folder / SIGNATURE),
    ]
    try:
        with (folder / CONTENTS).open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        tally.note(check, "not checked", "bundle", "ssh-keygen (OpenSSH) is not installed")
        return
    tally.expect(
        check, done.returncode == 0, "bundle", f"not by {identity}: {(done.stdout + done.stderr).strip()[:200]}"
    )


def rescore_counts(runs: Iterable[AuditedRun], tally: Tally) -> Iterator[AuditedRun]:
    """Metrics from the counts that a bundle carries, for those who do not have the data; yields the runs without counts."""
    check = "metrics recomputed from counts"
    for run in runs:
        path = run.folder / COUNTS
        if not path.is_file() or run.spec.data is None:
            yield run
            continue
        try:
            counts = json.loads(path.read_bytes())
            found: dict[str, float | None] = {}
            for checkpoint, scenes in counts.items():
                found |= {f"{n}_{checkpoint}": v for n, v in metrics_of_counts(list(scenes.values())).items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            tally.expect(check, False, run.name, f"{COUNTS} cannot be read: {error}")
            continue
        wrong = [n for n in run.record.metrics if not _same(found.get(n), run.record.metrics[n])]
        text = (
            f"{wrong[0]}: the record says {run.record.metrics[wrong[0]]}, the counts give {found.get(wrong[0])}"
            if wrong
            else ""
        )
        tally.expect(check, not wrong, run.name, text)


def _same(one: float | None, two: float | None) -> bool:
    return one == two if one is None or two is None else abs(one - two) < 1e-9
