"""Check the code behind a run: the list in code.json gives the digest in the key, and so does this version's code or that of the
recorded commit."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from functools import cache
from pathlib import Path

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs
from pretrain_bench.harness.audit.shipped import shipped
from pretrain_bench.harness.audit.tables import code_list
from pretrain_bench.harness.contract.records import is_commit
from pretrain_bench.harness.planning.code_digest import code_hashes, code_sha256, digest_of_hashes, package_folder
from pretrain_bench.harness.store.store import CODE

LISTED, KNOWN = "code.json gives the code digest", "code is known"
SECONDS = 120.0
MOST_COMMITS = 20
"""Most commits whose code is examined; each takes about a second."""
Stage = tuple[str, str, str]
"""Kind, method and part, which determine the modules that a stage can import."""
_DIGESTS = """
import json, sys
import pretrain_bench
from pretrain_bench.harness.planning.code_digest import code_sha256
assert pretrain_bench.__file__.startswith(sys.argv[2]), "the commit has no such package, and an installed one was found"
digests = []
for stage in json.loads(sys.argv[1]):
    try:
        digests.append(code_sha256(*stage))
    except Exception:
        digests.append(None)
print(json.dumps(digests))
"""


def check_code(runs: Runs, tally: Tally) -> None:
    """Compare the code of every run with its own list, with this version, and if that differs with the recorded commit."""
    unknown: dict[str, list[AuditedRun]] = defaultdict(list)
    for run in runs.values():
        if not _is_ours(run):
            tally.note(KNOWN, "not checked", run.name, f"the code of method {run.spec.method!r} is the user's own")
            continue
        _check_list(run, tally)
        commit, dirty = run.record.provenance.git_commit, run.record.provenance.git_dirty
        if _ours(run) != run.spec.code_sha256 and dirty:
            text = f"unknown code: run with uncommitted changes on commit {_short(commit)}"
            tally.note(KNOWN, "warning", run.name, text)
        elif _ours(run) == run.spec.code_sha256 and (dirty or commit in (None, _head()) or not is_commit(commit)):
            tally.expect(KNOWN, True, run.name, "")
        elif commit is None:
            made_by = run.record.provenance.project_version
            tally.note(KNOWN, "warning", run.name, f"unknown code: an installed copy, version {made_by}, not this one")
        else:
            unknown[commit].append(run)
    for number, (commit, named) in enumerate(unknown.items()):
        _check_commit(commit, named, number < MOST_COMMITS, tally)


def _is_ours(run: AuditedRun) -> bool:
    return run.spec.kind != "pretrain" or shipped(Method, run.spec.code_of) is not None


def _stage(run: AuditedRun) -> Stage:
    return run.spec.kind, run.spec.code_of, run.spec.part


def _ours(run: AuditedRun) -> str | None:
    """The digest in this version; None if it has no such stage."""
    try:
        return code_sha256(*_stage(run))
    except BenchError:
        return None


def _check_list(run: AuditedRun, tally: Tally) -> None:
    listed = code_list(run)
    if not listed:
        return  # the check of hashes reports a missing file
    if CODE in run.record.files:
        fits = digest_of_hashes(listed) == run.spec.code_sha256
        tally.expect(LISTED, fits, run.name, "its listed modules give a digest other than the one in the key")
    elif _ours(run) == run.spec.code_sha256:
        tally.expect(LISTED, listed == code_hashes(*_stage(run)), run.name, "it lists other modules than this code has")


def _check_commit(commit: str, runs: list[AuditedRun], look: bool, tally: Tally) -> None:
    """Compare runs with the code at the commit that they name."""
    if not is_commit(commit):
        for run in runs:
            tally.note(KNOWN, "not checked", run.name, "the record does not show its commit")
        return
    stages = tuple(sorted({_stage(run) for run in runs}))
    digests = digests_at(commit, stages) if look else None
    for run in runs:
        expected = None if digests is None else digests.get(_stage(run))
        if expected is None:
            why = "is not in the history of this copy" if digests is None else "has no such stage that can be hashed"
            tally.note(KNOWN, "warning", run.name, f"unknown code: commit {_short(commit)} {why}")
        else:
            text = f"other code than that of commit {_short(commit)}, which the record names as clean"
            tally.expect(KNOWN, expected == run.spec.code_sha256, run.name, text)


@cache
def digests_at(commit: str, stages: tuple[Stage, ...]) -> dict[Stage, str | None] | None:
    """The code digests of stages at a commit, computed by the commit's own code; None outside a checkout, and for a commit
    that is not an ancestor of HEAD: only code from the checkout's own history is executed."""
    folder = package_folder().parent
    if _head() is None or _git(folder, "merge-base", "--is-ancestor", commit, "HEAD") is None:
        return None
    archive = _git(folder, "archive", commit)
    if archive is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(scratch, filter="data")
            command = [sys.executable, "-c", _DIGESTS, json.dumps(stages), scratch]
            environment = {"PYTHONPATH": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, timeout=SECONDS, check=True
            )
            digests = json.loads(done.stdout)
        except (OSError, ValueError, tarfile.TarError, subprocess.SubprocessError):
            return {}
    return dict(zip(stages, digests, strict=True))


@cache
def _head() -> str | None:
    """The commit of this checkout; None for an installed copy."""
    folder = package_folder().parent
    if not (folder / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    return None if head is None else head.decode().strip()


def _git(folder: Path, *arguments: str) -> bytes | None:
    """The output of a git command; None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _short(commit: str | None) -> str:
    return (commit or "(none)")[:12]
