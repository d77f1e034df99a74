"""`bench audit`: check runs, and pack them for a reviewer."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs, display

if TYPE_CHECKING:
    from pretrain_bench.api.auditing import Audit

RunsOrBundle = Annotated[
    list[str] | None,
    typer.Argument(
        help="First characters of runs' keys, or one bundle. (default: all runs)",
        show_default=False,
        autocompletion=completion.keys,
    ),
]
Rerun = Annotated[
    list[str] | None,
    typer.Option(
        "--rerun",
        metavar="KEY",
        help="Rerun this run; may be given several times.",
        autocompletion=completion.keys,
    ),
]
RerunSample = Annotated[int, typer.Option("--rerun-sample", min=0, metavar="N", help="Rerun N randomly chosen cells.")]
RerunSeed = Annotated[
    int | None,
    typer.Option("--rerun-seed", min=0, metavar="N", help="Random seed of --rerun-sample. (default: a fresh one)"),
]


def audit(
    runs_or_bundle: RunsOrBundle = None,
    runs: Runs = DEFAULT_RUNS,
    rescore: Annotated[bool, typer.Option("--rescore/--no-rescore", help="Recompute metrics from predictions.")] = True,
    rerun: Rerun = None,
    rerun_sample: RerunSample = 0,
    times: Annotated[int, typer.Option("--times", min=1, help="Number of reruns of each.")] = 1,
    rerun_seed: RerunSeed = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Pack the store for a reviewer: FILE.tar.zst.")
    ] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="With --bundle: hide host and git identity.")] = False,
    sign: Annotated[Path | None, typer.Option("--sign", help="With --bundle: sign it with this SSH key.")] = None,
    signers: Annotated[Path | None, typer.Option("--signers", help="Allowed signers (ssh-keygen's format).")] = None,
    signer: Annotated[
        str | None, typer.Option("--signer", help="Required signer of the bundle or registration.")
    ] = None,
    registered: Annotated[
        Path | None,
        typer.Option("--registered", metavar="FILE", help="Name every cell of this registration that is absent."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 on a warning, 5 if something could not be checked.")
    ] = False,
    page: Annotated[Path | None, typer.Option("--page", help="Write the findings as an HTML page.")] = None,
    json: Json = False,
) -> None:
    """Check files, hashes, budgets, splits and seeds; recompute metrics; on request re-run. Exit code 1 on a failure.

    To detect runs that were left out, register the suite with `bench run --register` and pass --registered here.
    """
    keys = list(runs_or_bundle or [])
    if len(keys) == 1 and keys[0].endswith(".tar.zst"):
        runs = Path(keys.pop())
        if not runs.is_file():
            raise pb.WrongUse(f"{runs}: no such file")
    _check_packing(runs, bundle, anonymous, sign)
    shown = display(json)
    audited = pb.audit(
        runs,
        keys,
        rescore=rescore,
        rerun=rerun or (),
        rerun_sample=rerun_sample,
        times=times,
        rerun_seed=rerun_seed,
        signers=signers,
        signer=signer,
        registered=registered,
        display=shown,
    )
    if bundle is not None:
        packed = pb.pack_bundle(bundle, runs, anonymous=anonymous, sign=sign, display=shown)
        shown.say(f"{packed.path}: {packed.runs} runs, Merkle root {packed.merkle_root}")
    if page is not None:
        audited.write_page(page)
    _print(audited, json)
    audited.raise_if_failed()
    if code := audited.exit_code(strict):
        raise typer.Exit(code)


def _check_packing(runs: Path, bundle: Path | None, anonymous: bool, sign: Path | None) -> None:
    for flag, given in (("--anonymous", anonymous), ("--sign", sign is not None)):
        if given and bundle is None:
            raise pb.WrongUse(f"{flag} needs a bundle to pack: give --bundle FILE.tar.zst as well")
    if runs.is_file() and bundle is not None:
        raise pb.WrongUse("--bundle: a bundle is packed from a folder of runs, not from another bundle")


def _print(audited: Audit, json: bool) -> None:
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import WIDTH, print_json, table

    findings = audited.findings
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
    print("\n" + textwrap.fill(printable(audited.summary), WIDTH))
