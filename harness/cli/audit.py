"""`bench audit`: may these results be believed?"""

from __future__ import annotations

import random
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.harness.audit.findings import Finding, Tally
    from pretrain_bench.harness.audit.static import AuditedRun
    from pretrain_bench.harness.cli.console import Console

SAMPLE_SEED = 0


def audit(
    runs_or_bundle: Annotated[
        list[str] | None,
        typer.Argument(help="First characters of runs' keys, or one bundle.  [default: all runs]", show_default=False),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    rescore: Annotated[
        bool, typer.Option("--rescore/--no-rescore", help="Compute metrics again from predictions.")
    ] = True,
    rerun: Annotated[int, typer.Option("--rerun", min=0, help="Carry out so many cells again, drawn at random.")] = 0,
    repeat: Annotated[int, typer.Option("--repeat", min=0, help="Carry out each named run so many times.")] = 0,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Pack the store for a reviewer: FILE.tar.zst.")
    ] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Of a bundle: hide host and git identity.")] = False,
    sign: Annotated[Path | None, typer.Option("--sign", help="Of a bundle: sign it with this SSH key.")] = None,
    signers: Annotated[Path | None, typer.Option("--signers", help="Allowed signers (ssh-keygen's format).")] = None,
    signer: Annotated[str | None, typer.Option("--signer", help="Who must have signed the bundle.")] = None,
    page: Annotated[Path | None, typer.Option("--page", help="Write the findings as an HTML page.")] = None,
    json: Json = False,
) -> None:
    """Check files, hashes, budgets, splits and seeds; compute metrics again; on request run again. Exit code 1 on a failure."""
    from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
    from pretrain_bench.harness.audit.findings import Tally
    from pretrain_bench.harness.audit.static import audit_files
    from pretrain_bench.harness.cli.console import Console, writing
    from pretrain_bench.harness.store.store import Store

    console = Console(quiet=json)
    tally = Tally()
    named = runs_or_bundle or []
    if anonymous and bundle is None:
        raise WrongUse("--anonymous is of a bundle that is packed: give --bundle FILE.tar.zst as well")
    if len(named) == 1 and named[0].endswith(".tar.zst"):
        asked = {"--rerun": rerun, "--repeat": repeat, "--bundle": bundle}
        refused = [flag for flag, value in asked.items() if value]
        if refused:
            raise WrongUse(
                f"{', '.join(refused)}: not of a bundle, which holds no weights; audit the store itself, with --runs"
            )
        _audit_bundle(Path(named[0]), rescore, signers, signer, tally, console)
    else:
        if not runs.is_dir():
            raise WrongUse(f"{runs}: no such folder of runs; --runs names another, or give a bundle (.tar.zst)")
        store = Store(runs.resolve())
        keys = [store.find(prefix).name for prefix in named]
        found = audit_files(store, tally, keys or None)
        chosen = {k: r for k, r in found.items() if not keys or k in keys}
        if rescore:
            from pretrain_bench.harness.audit.rescore import rescore as score_again

            score_again(chosen.values(), tally, console.say)
        if repeat and not keys:
            raise WrongUse("--repeat: name the runs to repeat by their keys")
        _run_again(chosen if repeat else _sample(chosen, rerun), found, max(1, repeat), bool(repeat), tally, console)
        if bundle is not None:
            from pretrain_bench.harness.audit.bundle import pack

            with writing(bundle, "bundle (--bundle names another file)"):
                root = pack(found, store.root, bundle, anonymous=anonymous, sign=sign, say=console.say)
            console.say(f"{bundle}: {len(found)} runs, Merkle root {root}")
    findings = tally.all()
    if page is not None:
        from pretrain_bench.reports.page.html import render_audit

        with writing(page, "page (--page names another file)"):
            page.write_text(render_audit(findings), encoding="utf-8")
    _print(findings, json)
    failed = [f for f in findings if f.verdict == "failed"]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise BenchError(f"{failed[0].subject}: {failed[0].check}: {failed[0].detail}{more}")


def _audit_bundle(
    archive: Path, rescore: bool, signers: Path | None, signer: str | None, tally: Tally, console: Console
) -> None:
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.audit import bundle
    from pretrain_bench.harness.audit.rescore import rescore as score_again
    from pretrain_bench.harness.audit.static import audit_files
    from pretrain_bench.harness.store.store import Store

    if not archive.is_file():
        raise WrongUse(f"{archive}: no such file")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle.unpack(archive, folder)
        content = bundle.check_contents(folder, tally)
        bundle.check_signature(folder, signers, signer, tally)
        runs = audit_files(Store(folder), tally)
        bundle.check_merkle(content, runs, tally)
        if rescore:
            list(bundle.rescore_counts(runs.values(), tally))
            score_again(runs.values(), tally, console.say)


def _sample(runs: dict[str, AuditedRun], number: int) -> dict[str, AuditedRun]:
    """So many fine-tunings, drawn with a fixed seed."""
    ok = sorted(k for k, r in runs.items() if r.spec.kind == "finetune" and r.record.outcome == "ok")
    return {k: runs[k] for k in random.Random(SAMPLE_SEED).sample(ok, min(number, len(ok)))}


def _run_again(
    chosen: dict[str, AuditedRun], runs: dict[str, AuditedRun], times: int, show: bool, tally: Tally, console: Console
) -> None:
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.audit import rerun
    from pretrain_bench.harness.executors.local import LocalExecutor

    for run in chosen.values():
        gaps = []
        for _ in range(times):
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    again = rerun.repeat(run, runs, Path(scratch), LocalExecutor(), console)
                except WrongUse as error:
                    tally.note(rerun.CHECK, "not checked", run.name, str(error))
                    break
                rerun.compare(again, runs, tally)
                gaps.append(rerun.largest_difference(run.record, again.pairs[-1][1]))
        if show and gaps:
            gap, name = max(gaps)
            spread = rerun.seed_spread(run, runs)
            beside = f"{spread:.6f}" if spread is not None else f"unknown with fewer than {rerun.SPREAD_FROM} seeds"
            text = f"largest difference of {len(gaps)} repetitions: {name} {gap:.6f}; standard deviation over seeds: {beside}"
            tally.note("determinism", "ok", run.name, text)


def _print(findings: list[Finding], json: bool) -> None:
    from pretrain_bench.harness.cli.console import WIDTH, print_json, printable, table

    if json:
        print_json([f._asdict() for f in findings])
        return
    alike: dict[tuple[str, str, str], list[str]] = {}
    for f in findings:
        if f.verdict != "ok" or f.check == "determinism":
            alike.setdefault((f.verdict, f.check, f.detail), []).append(f.subject)
    for (verdict, check, detail), subjects in alike.items():
        more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        text = printable(f"{verdict}: {check}: {subjects[0]}{more}: {detail}")
        print(textwrap.fill(text, WIDTH, subsequent_indent="    "))
    rows = [(f.check, f.detail) for f in findings if f.verdict == "ok" and f.check != "determinism"]
    print(("\n" if alike else "") + table(("checks that hold", "how often"), rows) if rows else "nothing else to audit")
