"""Audit a folder of runs or a bundle: check files, recompute scores, and on request rerun runs."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.audit import bundle, rerun
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.prepared import PreparedData
from pretrain_bench.harness.audit.registered import check_registered
from pretrain_bench.harness.audit.rescore import rescore
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.audit.static import audit_files
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.executors.choice import process_executor
from pretrain_bench.harness.running.display import Display
from pretrain_bench.harness.store.bundle import CONTENTS, read_contents, unpack
from pretrain_bench.harness.store.store import Store

KEY_CHARACTERS = 4
"""Shortest accepted prefix of a key, so that a number of runs is never mistaken for a key."""
MOST_SEED = 2**32


class AuditOptions(NamedTuple):
    """What to audit. `keys` selects runs by key prefix (all if empty). `rerun` names runs to rerun, and `rerun_sample` draws
    more from the fine-tunings among `keys`, with the seed `rerun_seed` (random by default); each is rerun `times` times.
    `signers` (a file) and `signer` state who must have signed a bundle or registration; `registered` is the registration of
    the suite."""

    keys: Sequence[str] = ()
    rescore: bool = True
    rerun: Sequence[str] = ()
    rerun_sample: int = 0
    times: int = 1
    rerun_seed: int | None = None
    signers: Path | None = None
    signer: str | None = None
    registered: Path | None = None


class Audit(NamedTuple):
    """The findings, and the audited runs by key. The run folders of a bundle no longer exist at this point."""

    tally: Tally
    runs: dict[str, AuditedRun]


def audit(path: Path, options: AuditOptions, display: Display) -> Audit:
    """Audit a folder of runs or a bundle.

    Raises WrongUse for a path that is neither, for unknown keys, and for requests that a bundle cannot fulfil.
    """
    if options.times != 1 and not (options.rerun or options.rerun_sample):
        raise WrongUse("--times: name runs with --rerun KEY, or draw some with --rerun-sample N")
    if not path.is_file():
        store = Store(path.resolve())
        store.check()
        _check_rerun(options.rerun)
        return _audit_store(store, options, display)
    if options.rerun or options.rerun_sample:
        flags = [
            name for name, value in (("--rerun", options.rerun), ("--rerun-sample", options.rerun_sample)) if value
        ]
        raise WrongUse(
            f"{', '.join(flags)}: not possible for a bundle, which holds no weights; audit the store itself, with --runs"
        )
    # Unpacked afresh: an existing copy in the cache is not trusted.
    with tempfile.TemporaryDirectory() as scratch:
        return _audit_bundle(path, Path(scratch), options, display)


def _audit_store(store: Store, options: AuditOptions, display: Display) -> Audit:
    tally = Tally()
    keys = {store.find(prefix).name for prefix in options.keys}
    again = [store.find(prefix).name for prefix in options.rerun]
    data = PreparedData(display.say, options.rescore)
    runs, chosen = audit_files(store, tally, sorted(keys) or None, data)
    _check_registered(options, runs, tally)
    if options.rescore:
        rescore(chosen.values(), data, tally)
    for key in dict.fromkeys(again):
        if key in runs:
            _run_again(runs[key], runs, options.times, tally, display)
    for run in _sample(chosen, options, display):
        _run_again(run, runs, options.times, tally, display)
    return Audit(tally, chosen)


def _audit_bundle(archive: Path, folder: Path, options: AuditOptions, display: Display) -> Audit:
    tally = Tally()
    unpack(archive, folder)
    contents = read_contents(folder, archive)
    bundle.check_contents(folder, contents, tally)
    bundle.check_signature(folder / CONTENTS, options.signers, options.signer, tally)
    store = Store(folder, bundle=archive)
    keys = {store.find(prefix).name for prefix in options.keys}
    data = PreparedData(display.say, options.rescore)
    runs, chosen = audit_files(store, tally, sorted(keys) or None, data)
    bundle.check_merkle(contents, runs, tally)
    _check_registered(options, runs, tally)
    if options.rescore:
        bundle.rescore_counts(chosen.values(), data, tally)
        rescore(chosen.values(), data, tally)
    return Audit(tally, chosen)


def _check_registered(options: AuditOptions, runs: dict[str, AuditedRun], tally: Tally) -> None:
    if options.registered is not None:
        check_registered(options.registered, runs, options.signers, options.signer, tally)


def _check_rerun(prefixes: Sequence[str]) -> None:
    """Raises WrongUse for a key prefix so short that it could be meant as a number of runs."""
    for prefix in prefixes:
        if len(prefix) < KEY_CHARACTERS:
            raise WrongUse(
                f"--rerun {prefix}: give {KEY_CHARACTERS} or more characters of a key; --rerun-sample N draws runs at random"
            )


def _sample(runs: dict[str, AuditedRun], options: AuditOptions, display: Display) -> list[AuditedRun]:
    """Draw fine-tunings with a seed that the author of the runs could not know."""
    if not options.rerun_sample:
        return []
    seed = secrets.randbelow(MOST_SEED) if options.rerun_seed is None else options.rerun_seed
    display.say(f"the runs to rerun are drawn with --rerun-seed {seed}")
    keys = sorted(k for k, r in runs.items() if r.spec.kind == "finetune" and r.record.outcome == Outcome.ok)
    return [runs[k] for k in random.Random(seed).sample(keys, min(options.rerun_sample, len(keys)))]


def _run_again(run: AuditedRun, runs: dict[str, AuditedRun], times: int, tally: Tally, display: Display) -> None:
    """Rerun a run and judge each repetition; then report the largest difference beside the spread over seeds."""
    gaps = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                repeated = rerun.repeat(run, runs, Path(scratch), process_executor(), display)
            except rerun.RerunFailed as error:
                rerun.judge_failure(run, runs, error, tally)
                break
            except (WrongUse, EnvironmentCannot) as error:
                tally.note(rerun.CHECK, "not checked", run.name, str(error))
                break
            rerun.compare(repeated, runs, tally)
            gaps.append(rerun.largest_difference(run, repeated.pairs[-1][1]))
    if gaps:
        gap, name = max(gaps)
        spread = rerun.seed_spread(run, runs, name)
        beside = f"{spread:.6f}" if spread is not None else f"unknown with fewer than {rerun.SPREAD_FROM} seeds"
        text = (
            f"largest difference of {len(gaps)} repetitions: {name} {gap:.6f}; standard deviation over seeds: {beside}"
        )
        tally.note("determinism", "ok", run.name, text)
