"""Checks of a bundle that a folder of runs does not have: its list of files, its Merkle root, its signature, and its counts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.metrics.scorer import metrics_of_counts
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.static import AuditedRun
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.bundle import CONTENTS, COUNTS, MAX_BYTES, SIGNATURE, Contents, mismatches

NAMESPACE = "pretrain-bench"
"""What a signature is for, as ssh-keygen calls it."""


def check_contents(folder: Path, contents: Contents, tally: Tally) -> None:
    """Compare an unpacked bundle with its own list of files."""
    check = "bundle holds what it lists"
    wrong = list(mismatches(folder, contents))
    for name, problem in wrong:
        tally.expect(check, False, name, problem)
    for _ in range(len(contents.files) - len(wrong)):
        tally.expect(check, True, "", "")


def check_merkle(contents: Contents, runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Recompute the root over all records and compare it with the one that was packed."""
    root = chain.merkle_root(r.record.sha256 for r in runs.values()) if runs else ""
    tally.expect("Merkle root over the records", root == contents.merkle_root, "bundle", f"comes out as {root[:16]}…")


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


def rescore_counts(runs: Iterable[AuditedRun], tally: Tally) -> None:
    """Recompute metrics from the counts that a bundle carries, for reviewers without the data."""
    check = "metrics recomputed from counts"
    for run in runs:
        path = run.folder / COUNTS
        if not path.is_file() or run.spec.data is None:
            continue
        try:
            counts = read_json(path, MAX_BYTES)
            computed: dict[str, float | None] = {}
            for checkpoint, scenes in counts.items():
                computed |= {f"{n}_{checkpoint}": v for n, v in metrics_of_counts(list(scenes.values())).items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            tally.expect(check, False, run.name, f"{COUNTS} cannot be read: {error}")
            continue
        uncounted = {c for c in CHECKPOINTS if c not in counts}
        recorded = {n: v for n, v in run.record.metrics.items() if n.rpartition("_")[2] not in uncounted}
        for checkpoint in sorted({n.rpartition("_")[2] for n in run.record.metrics} & uncounted):
            tally.note(check, "not checked", run.name, f"the bundle has no counts of the {checkpoint} checkpoint")
        wrong = [n for n, value in recorded.items() if not _same(computed.get(n), value)]
        text = (
            f"{wrong[0]}: the record says {recorded[wrong[0]]}, the counts give {computed.get(wrong[0])}"
            if wrong
            else ""
        )
        tally.expect(check, not wrong, run.name, text)


def _same(one: float | None, two: float | None) -> bool:
    return one == two if one is None or two is None else abs(one - two) < 1e-9
