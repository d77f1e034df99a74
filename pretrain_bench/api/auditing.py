"""Audits: check the files of a store or bundle, recompute metrics, and on request run again."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.display import Display, TqdmDisplay
from pretrain_bench.api.stores import AnyPath, Runs, folder_to_write
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse, writing
from pretrain_bench.harness.audit import bundle
from pretrain_bench.harness.audit import rerun as again
from pretrain_bench.harness.audit.findings import Finding, Tally
from pretrain_bench.harness.audit.rescore import rescore as score_again
from pretrain_bench.harness.audit.static import AuditedRun, audit_files, read_runs
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_SEED = 0
BUNDLE_SUFFIX = ".tar.zst"


class Audit(NamedTuple):
    """The findings of an audit: failures first, then warnings, then what was not checked, then one line per check that holds."""

    findings: list[Finding]

    @property
    def failed(self) -> list[Finding]:
        """Findings that contradict the records."""
        return [f for f in self.findings if f.verdict == "failed"]

    def raise_if_failed(self) -> None:
        """Raises BenchError that names the first failure."""
        if self.failed:
            first, *others = self.failed
            more = f", and {len(others)} more" if others else ""
            raise BenchError(f"{first.subject}: {first.check}: {first.detail}{more}")

    def to_frame(self) -> pd.DataFrame:
        """One row a finding: check, verdict, subject, detail."""
        import pandas as pd

        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def write_page(self, path: AnyPath) -> None:
        """Write the findings as an HTML page. Raises EnvironmentCannot where it cannot be written."""
        from pretrain_bench.reports.page.page import render_audit

        with writing(Path(path), "page (--page names another file)"):
            Path(path).write_text(render_audit(self.findings), encoding="utf-8")


class PackedBundle(NamedTuple):
    """A written bundle: its file, the number of runs in it, and the Merkle root over their records."""

    path: Path
    runs: int
    merkle_root: str


def audit(
    runs: Runs = "runs",
    keys: Iterable[str] = (),
    *,
    rescore: bool = True,
    rerun: int = 0,
    repeat: int = 0,
    signers: AnyPath | None = None,
    signer: str | None = None,
    display: Display | None = None,
) -> Audit:
    """Check files, hashes, budgets, splits and seeds of a folder of runs or a bundle, and recompute metrics from predictions.

    Args:
        runs: a folder of runs, or a bundle (.tar.zst).
        keys: the beginnings of keys of the runs to check; all runs by default. Not for a bundle.
        rescore: recompute metrics from saved predictions.
        rerun: re-run this many randomly chosen fine-tunings (with a fixed seed) and compare. Not for a bundle.
        repeat: re-run each of `keys` this many times instead, and report the largest difference. Not for a bundle.
        signers: file of allowed signers (ssh-keygen's format), for a bundle.
        signer: who must have signed the bundle.
        display: shows progress; tqdm bars by default.

    Raises WrongUse for a missing folder, an unknown key, or an option that a bundle does not support.
    """
    display, tally, keys = display or TqdmDisplay(), Tally(), list(keys)
    path = folder_to_write(runs)
    if path.name.endswith(BUNDLE_SUFFIX):
        if refused := [flag for flag, value in {"--rerun": rerun, "--repeat": repeat, "keys": keys}.items() if value]:
            raise WrongUse(
                f"{', '.join(refused)}: not for a bundle, which holds no weights; audit the store itself, with --runs"
            )
        _audit_bundle(path, rescore, (signers, signer), tally, display)
        return Audit(tally.all())
    if not path.is_dir():
        raise WrongUse(f"{path}: no such folder of runs; --runs names another, or give a bundle ({BUNDLE_SUFFIX})")
    if repeat and not keys:
        raise WrongUse("--repeat: name the runs to repeat by their keys")
    store = Store(path.resolve())
    named = [store.find(prefix).name for prefix in keys]
    found = audit_files(store, tally, named or None)
    chosen = {k: r for k, r in found.items() if not named or k in named}
    if rescore:
        score_again(chosen.values(), tally, display.say)
    if repeat:
        _repeat(chosen, found, repeat, tally, display)
    else:
        _rerun(_sample(chosen, rerun), found, tally, display)
    return Audit(tally.all())


def pack_bundle(
    target: AnyPath,
    runs: Runs = "runs",
    *,
    anonymous: bool = False,
    sign: AnyPath | None = None,
    display: Display | None = None,
) -> PackedBundle:
    """Pack a folder of runs for a reviewer, as FILE.tar.zst: records and predictions, no weights, labels, points or images.

    `anonymous` hides host and git identity; `sign` is an SSH key to sign it with. Raises EnvironmentCannot where the file
    cannot be written or ssh-keygen is missing.
    """
    store = Store(folder_to_write(runs).resolve())
    store.check()
    found, path = read_runs(store, Tally()), Path(target)
    say = (display or TqdmDisplay()).say
    with writing(path, "bundle (--bundle names another file)"):
        key = None if sign is None else Path(sign)
        root = bundle.pack(found, store.root, path, anonymous=anonymous, sign=key, say=say)
    return PackedBundle(path, len(found), root)


def _audit_bundle(
    archive: Path, rescore: bool, signing: tuple[AnyPath | None, str | None], tally: Tally, display: Display
) -> None:
    if not archive.is_file():
        raise WrongUse(f"{archive}: no such file")
    signers, signer = signing
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle.unpack(archive, folder)
        content = bundle.check_contents(folder, tally)
        bundle.check_signature(folder, None if signers is None else Path(signers), signer, tally)
        runs = audit_files(Store(folder), tally)
        bundle.check_merkle(content, runs, tally)
        if rescore:
            list(bundle.rescore_counts(runs.values(), tally))
            score_again(runs.values(), tally, display.say)


def _sample(runs: dict[str, AuditedRun], number: int) -> list[AuditedRun]:
    """Randomly chosen fine-tunings, with a fixed seed."""
    ok = sorted(k for k, r in runs.items() if r.spec.kind == "finetune" and r.record.outcome == "ok")
    return [runs[k] for k in random.Random(SAMPLE_SEED).sample(ok, min(number, len(ok)))]


def _rerun(chosen: list[AuditedRun], runs: dict[str, AuditedRun], tally: Tally, display: Display) -> None:
    """Run each once more and compare."""
    for run in chosen:
        _gap(run, runs, tally, display)


def _repeat(
    chosen: dict[str, AuditedRun], runs: dict[str, AuditedRun], times: int, tally: Tally, display: Display
) -> None:
    """Run each several times, and note the largest difference beside the spread over seeds."""
    for run in chosen.values():
        gaps: list[tuple[float, str]] = []
        while len(gaps) < times and (gap := _gap(run, runs, tally, display)):
            gaps.append(gap)
        if gaps:
            largest, name = max(gaps)
            spread = again.seed_spread(run, runs)
            beside = f"{spread:.6f}" if spread is not None else f"unknown with fewer than {again.SPREAD_FROM} seeds"
            text = f"largest difference of {len(gaps)} repetitions: {name} {largest:.6f}; standard deviation over seeds: {beside}"
            tally.note("determinism", "ok", run.name, text)


def _gap(run: AuditedRun, runs: dict[str, AuditedRun], tally: Tally, display: Display) -> tuple[float, str] | None:
    """Run once more and compare; the largest difference and its metric, None where it cannot run here."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            repeated = again.repeat(run, runs, Path(scratch), LocalExecutor(), display)
        except WrongUse as error:
            tally.note(again.CHECK, "not checked", run.name, str(error))
            return None
        again.compare(repeated, runs, tally)
        return again.largest_difference(run.record, repeated.pairs[-1][1])
