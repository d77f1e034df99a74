"""`bench audit`: may these results be believed?"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.harness.audit.findings import Finding


def audit(
    runs_or_bundle: Annotated[
        list[str] | None,
        typer.Argument(help="First characters of runs' keys, or one bundle.  [default: all runs]", show_default=False),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    rescore: Annotated[
        bool, typer.Option("--rescore/--no-rescore", help="Compute metrics again from predictions.")
    ] = True,
    rerun: Annotated[
        list[str] | None, typer.Option("--rerun", metavar="KEY", help="Run this run again; may be given several times.")
    ] = None,
    rerun_sample: Annotated[
        int, typer.Option("--rerun-sample", min=0, metavar="N", help="Run N randomly chosen cells again.")
    ] = 0,
    times: Annotated[int, typer.Option("--times", min=1, help="How many times to run each of them again.")] = 1,
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
    from pretrain_bench.harness.audit.audit import AuditOptions
    from pretrain_bench.harness.audit.audit import audit as run_audit
    from pretrain_bench.harness.cli.console import Console, writing

    console = Console(quiet=json)
    if anonymous and bundle is None:
        raise WrongUse("--anonymous is of a bundle that is packed: give --bundle FILE.tar.zst as well")
    keys = list(runs_or_bundle or [])
    if len(keys) == 1 and keys[0].endswith(".tar.zst"):
        runs = Path(keys.pop())
        if not runs.is_file():
            raise WrongUse(f"{runs}: no such file")
    if runs.is_file() and bundle is not None:
        raise WrongUse("--bundle: a bundle is packed from a folder of runs, not from another bundle")
    options = AuditOptions(keys, rescore, rerun or (), rerun_sample, times, signers, signer)
    done = run_audit(runs, options, console)
    if bundle is not None:
        from pretrain_bench.harness.audit.pack import PackOptions, pack

        with writing(bundle, "bundle (--bundle names another file)"):
            root = pack(done.runs, runs.resolve(), bundle, PackOptions(anonymous, sign), console.say)
        console.say(f"{bundle}: {len(done.runs)} runs, Merkle root {root}")
    findings = done.tally.all()
    if page is not None:
        from pretrain_bench.reports.page.page import render_audit

        with writing(page, "page (--page names another file)"):
            page.write_text(render_audit(findings), encoding="utf-8")
    _print(findings, json)
    failed = [f for f in findings if f.verdict == "failed"]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise BenchError(f"{failed[0].subject}: {failed[0].check}: {failed[0].detail}{more}")


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
