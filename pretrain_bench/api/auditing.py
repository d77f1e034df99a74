"""Audits: check the files of a store or bundle, recompute metrics, and on request rerun cells."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.stores import AnyPath, Runs, folder_to_write
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse, writing
from pretrain_bench.harness.audit.audit import AuditOptions
from pretrain_bench.harness.audit.audit import audit as run_audit
from pretrain_bench.harness.audit.findings import Finding, Tally, exit_code, summary
from pretrain_bench.harness.audit.pack import PackOptions, pack
from pretrain_bench.harness.audit.runs import read_runs
from pretrain_bench.harness.store.bundle import unpack_as_runs
from pretrain_bench.harness.store.object_store import connect, pull, remote_url
from pretrain_bench.harness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


class Audit(NamedTuple):
    """The findings of an audit: failures first, then warnings, then what was not checked, then one line per check that holds."""

    findings: list[Finding]
    runs: int = 0
    """The number of runs that were read."""

    @property
    def failed(self) -> list[Finding]:
        """Findings that contradict the records."""
        return [f for f in self.findings if f.verdict == "failed"]

    @property
    def summary(self) -> str:
        """The findings summed up in a sentence."""
        return summary(self.findings, self.runs)

    def exit_code(self, strict: bool = False) -> int:
        """1 if a check failed, else 0; with `strict` 4 for warnings and 5 for checks that could not be made."""
        return exit_code(self.findings, strict)

    def raise_if_failed(self) -> None:
        """Raises BenchError that names the first failure."""
        if self.failed:
            first, *others = self.failed
            more = f", and {len(others)} more" if others else ""
            raise BenchError(f"{first.subject}: {first.check}: {first.detail}{more}")

    def to_frame(self) -> pd.DataFrame:
        """One row for each finding: check, verdict, subject, detail."""
        import pandas as pd

        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def write_page(self, path: AnyPath) -> None:
        """Write the findings as an HTML page. Raises EnvironmentCannot where it cannot be written."""
        from pretrain_bench.reports.page.html import render_audit

        with writing(Path(path), "page (--page names another file)"):
            Path(path).write_text(render_audit(self.findings, self.summary), encoding="utf-8")


class PackedBundle(NamedTuple):
    """A written bundle: its file, the number of runs in it, and the Merkle root over their records."""

    path: Path
    runs: int
    merkle_root: str


def audit(
    runs: Runs = "runs",
    keys: Names = (),
    *,
    rescore: bool = True,
    rerun: Names = (),
    rerun_sample: int = 0,
    times: int = 1,
    rerun_seed: int | None = None,
    signers: AnyPath | None = None,
    signer: str | None = None,
    registered: AnyPath | None = None,
    display: Display | None = None,
) -> Audit:
    """Check files, hashes, budgets, splits and seeds of a folder of runs or a bundle, and recompute metrics from predictions.

    Args:
        runs: a folder of runs, a bundle (.tar.zst) or s3://bucket/prefix.
        keys: the beginnings of keys of the runs to check; all runs by default.
        rescore: recompute metrics from saved predictions.
        rerun: the beginnings of keys of runs to rerun and compare. Not for a bundle, which contains no weights.
        rerun_sample: rerun this many randomly chosen fine-tunings too. Not for a bundle.
        times: the number of reruns of each; the largest difference is among the findings.
        rerun_seed: seed of that choice; a fresh number by default, which is reported.
        signers: file of allowed signers (ssh-keygen's format), for a bundle or a registration.
        signer: the required signer of the bundle or registration.
        registered: the registration of the suite (`run(register=...)`): every cell in it must have a run.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    Raises WrongUse for a path that is neither, an unknown key, or an option that a bundle does not support.
    """
    allowed = None if signers is None else Path(signers)
    announced = None if registered is None else Path(registered)
    options = AuditOptions(
        as_list(keys), rescore, as_list(rerun), rerun_sample, times, rerun_seed, allowed, signer, announced
    )
    # A bundle is unpacked anew, and a bucket is fetched anew: the cached copy behind an open store is not trusted.
    path = named = runs.place if isinstance(runs, Store) else Path(runs)
    with contextlib.ExitStack() as stack:
        if (url := remote_url(path)) is not None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pull(connect(url), path)
        audited = run_audit(path, options, display or default_display())
    if not audited.runs and not audited.tally.all():
        raise WrongUse(f"{named}: no runs, so there is nothing to audit; --runs names a folder of runs or a bundle")
    return Audit(audited.tally.all(), len(audited.runs))


def pack_bundle(
    target: AnyPath,
    runs: Runs = "runs",
    *,
    anonymous: bool = False,
    sign: AnyPath | None = None,
    display: Display | None = None,
) -> PackedBundle:
    """Pack a folder of runs for a reviewer, as FILE.tar.zst: records and predictions, no weights, labels, points or images.

    `anonymous` hides host and git identity; `sign` is an SSH key to sign it with. Raises WrongUse where there is no run to
    pack, EnvironmentCannot where the file cannot be written or ssh-keygen is missing.
    """
    store = folder_to_write(runs)
    store.check()
    audited, path = read_runs(store, Tally()), Path(target)
    options = PackOptions(anonymous, None if sign is None else Path(sign))
    with writing(path, "bundle (--bundle names another file)"):
        root = pack(audited, store.root, path, options, (display or default_display()).say)
    return PackedBundle(path, len(audited), root)


def unpack_bundle(bundle: AnyPath, runs: AnyPath = "runs") -> Store:
    """Unpack a bundle into a new folder of runs, to continue its suite or add other runs. Returns the folder as a store.

    A bundle holds no weights: pre-trainings run again if a stage that is not done builds on them. Raises WrongUse for a file
    that is not a bundle, is damaged, or for a folder that is not empty; EnvironmentCannot where it cannot be written.
    """
    folder = folder_to_write(runs).root
    with writing(folder, "folder of runs (--runs names another)"):
        return unpack_as_runs(Path(bundle), folder)
