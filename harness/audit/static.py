"""Check a store's files against themselves and each other; nothing is executed, and of the data only manifests are read."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.foreign_files import plain_size_and_sha256, read_json, read_plain
from pretrain_bench.harness.audit.account import check_account
from pretrain_bench.harness.audit.code import check_code
from pretrain_bench.harness.audit.contamination import check_contamination, check_official_labels
from pretrain_bench.harness.audit.coverage import check_coverage
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.limits import check_budget, check_profile
from pretrain_bench.harness.audit.prepared import PreparedData
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, read_run, read_runs
from pretrain_bench.harness.audit.seeds import check_seeds
from pretrain_bench.harness.audit.shipped import shipped
from pretrain_bench.harness.audit.split import check_split
from pretrain_bench.harness.audit.tables import check_tables
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.retention import NOT_PACKED
from pretrain_bench.harness.store.spec_reader import SpecReader
from pretrain_bench.harness.store.store import ARTIFACTS, ATTEMPTS, LOG, RECORD, Store, read_record

FILES = "files beside the record match their hashes"
PRUNINGS = "the chain names every pruning"
PICTURES = "pictures"
SYNTHETIC = "synthetic matches the dataset"
UNDER_WAY = "no run ended during the audit"


def audit_files(
    store: Store, tally: Tally, wanted: list[str] | None = None, data: PreparedData | None = None
) -> tuple[Runs, Runs]:
    """Run every check on files; returns the readable runs by key, and those among them that were audited.

    `wanted` limits the audit to these keys, None means all; `data` locates the manifests that determine splits. Runs may end
    meanwhile. The chain is read first, and runs that it does not list yet are left to the next audit.
    """
    completed = chain.read(store.root)
    runs, data = read_runs(store, tally), data or PreparedData()
    late = _ended_meanwhile(store, completed, runs)
    for key in late:
        tally.note(UNDER_WAY, "not checked", runs[key].name, "it ended during this audit; audit again")
    checked = {key: run for key, run in runs.items() if key not in late}
    chosen = checked if wanted is None else {key: run for key, run in checked.items() if key in wanted}
    lost = defaultdict[str, set[int]](set)
    for link in completed.links if completed else ():
        if link.outcome == chain.LOST:
            lost[link.key].add(link.attempt)
    cleaned = chain.hashes_of(completed.links if completed else (), (chain.PRUNED,))
    for run in chosen.values():
        own = Tally()
        _check_attempts(run, lost[run.record.key], own)
        _check_run(run, runs, data, own)
        check_contamination(run, runs, own)
        _check_files(run, store.bundle is not None, own)
        _check_pruned(run, cleaned, completed is not None, own)
        if any(f.verdict == "failed" for f in own.findings) and _is_replaced(run):
            tally.note(
                UNDER_WAY, "not checked", run.name, "a newer attempt ended while this audit read the run; audit again"
            )
        else:
            tally.add(own)
    _check_chain(store, runs, completed, tally)
    check_tables(checked, tally)
    check_seeds(checked, tally)
    check_code(chosen, tally)
    return runs, chosen


def _ended_meanwhile(store: Store, completed: chain.Chain | None, runs: Runs) -> set[str]:
    """Keys of runs that the chain did not list when it was read, but lists now."""
    named = _attempts_in(completed)
    unnamed = {key for key, run in runs.items() if run.record.sha256 not in named}
    if not unnamed:
        return set()
    since = _attempts_in(chain.read(store.root))
    return {key for key in unnamed if runs[key].record.sha256 in since}


def _is_replaced(run: AuditedRun) -> bool:
    """Whether another attempt has replaced a run since it was read."""
    try:
        if read_json(run.folder / RECORD, below=run.folder)["sha256"] == run.record.sha256:
            return False
        return (
            read_record(run.folder / RECORD).sha256 != run.record.sha256
        )  # of an older version, with a different hash
    except (WrongUse, OSError, ValueError, LookupError, TypeError):
        return True


def _check_run(run: AuditedRun, runs: Runs, data: PreparedData, tally: Tally) -> None:
    if run.record.outcome == Outcome.ok:
        _check_artifacts(run, tally)
    _check_parents(run, runs, tally)
    _check_identity(run, runs, tally)
    check_budget(run, runs, tally)
    check_profile(run, tally)
    check_account(run, runs, tally)
    _check_labels(run, tally)
    check_split(run, data, tally)
    check_coverage(run, tally)
    check_official_labels(run.record, run.spec, tally)
    _check_provenance(run, tally)


def _check_files(run: AuditedRun, in_bundle: bool, tally: Tally) -> None:
    """Every file that a page shows or a verdict uses matches the record: events, log, confusion matrices, code hashes."""
    if not run.record.files:
        tally.note(FILES, "not checked", run.name, "recorded before the files beside a record were hashed")
    for name, entry in run.record.files.items():
        try:
            actual = plain_size_and_sha256(run.folder / name, run.folder, entry.bytes)
        except FileNotFoundError:
            if in_bundle and name == LOG:
                tally.note(FILES, "not checked", run.name, f"{name} is not in the bundle")
            else:
                tally.expect(FILES, False, run.name, f"{name} is missing")
            continue
        except OSError as error:
            tally.expect(FILES, False, run.name, f"{name}: {error.strerror}: a link or special file, which is not read")
            continue
        tally.expect(FILES, actual == (entry.bytes, entry.sha256), run.name, f"{name} has changed content")
    if any((run.folder / PICTURES).glob("*.png")):
        text = f"{PICTURES}/ were drawn after the run and prove nothing; redraw them with bench show KEY --scene"
        tally.note(FILES, "not checked", run.name, text)


def _check_pruned(run: AuditedRun, cleaned: set[str], has_chain: bool, tally: Tally) -> None:
    """The files in pruned.json were artifacts of the record, and `bench clean` noted their deletion in the chain."""
    check, gone = PRUNINGS, run.pruned
    strange = sorted(set(gone) - set(run.record.artifacts))
    tally.expect(check, not strange, run.name, f"pruned.json lists {strange[0] if strange else ''}, not an artifact")
    by_clean = [name for name, reason in gone.items() if reason != NOT_PACKED]
    if by_clean and has_chain and run.record.files:  # older versions did not note it in the chain
        named = run.record.sha256 in cleaned
        tally.expect(check, named, run.name, f"{by_clean[0]}: {gone[by_clean[0]]}, but the chain does not note it")


def _check_artifacts(run: AuditedRun, tally: Tally) -> None:
    """Every file that the record lists exists with its hash, or its deletion is recorded; no other file exists."""
    check, gone = "artifacts match their hashes", run.pruned
    folder = run.folder / ARTIFACTS
    absent = [name for name in run.record.artifacts if name in gone and not (folder / name).exists()]
    if absent:
        first, others = absent[0], f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        tally.note("artifacts are there", "not checked", run.name, f"{first}{others}: pruned ({gone[first]})")
    for name, entry in run.record.artifacts.items():
        path = folder / name
        if name in absent:
            continue
        try:
            actual = plain_size_and_sha256(path, run.folder, entry.bytes)
        except FileNotFoundError:
            tally.expect("artifacts are there", False, run.name, f"{name} is missing and was not pruned")
            continue
        except OSError as error:
            tally.expect(check, False, run.name, f"{name}: {error.strerror}: a link or special file, which is not read")
            continue
        tally.expect(check, actual == (entry.bytes, entry.sha256), run.name, f"{name} has changed content")
    extra = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if not p.is_dir() and p.relative_to(folder).as_posix() not in run.record.artifacts
    )
    tally.expect(check, not extra, run.name, f"{extra[0] if extra else ''} is not in the record")


def _are_equal(one: Path, two: Path) -> bool:
    """Whether two files can be read and have one content: as it is written, a record need not be validated twice."""
    try:
        return read_plain(one) == read_plain(two)
    except OSError:
        return False


def _check_attempts(run: AuditedRun, lost: set[int], tally: Tally) -> None:
    """Every attempt before the counted one exists, or the chain notes its loss."""
    check, folder = "every attempt is kept", run.folder / ATTEMPTS
    numbers = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    last = run.record.attempt
    all_numbers = set(range(1, last + 1))
    tally.expect(
        check,
        all_numbers - lost <= {*numbers} <= all_numbers,
        run.name,
        f"attempts {numbers}, but the record is of attempt {last}",
    )
    for number in numbers:
        kept = folder / str(number) / RECORD
        if number == last and _are_equal(kept, run.folder / RECORD):
            tally.expect(check, True, run.name, "")
            continue
        try:
            record = read_record(kept)
        except WrongUse as error:
            tally.expect(check, False, run.name, str(error))
            continue
        if number == last:
            tally.expect(check, record == run.record, run.name, "the last attempt's record is not the counted one")
        else:
            own = (record.key, record.attempt) == (run.record.key, number)
            # A successful run may be repeated, for example after its artifacts were pruned.
            changed = own and record.outcome == Outcome.ok and record.artifacts != run.record.artifacts
            if changed and (why := _why_it_may_differ(record, run.record)):
                tally.note(check, "warning", run.name, f"attempts/{number} was a success with different results, {why}")
                continue
            text = f"attempts/{number} has a record of another run, or of a success with different results"
            tally.expect(check, own and not changed, run.name, text)


def _why_it_may_differ(one: Record, two: Record) -> str:
    """Why two attempts may give different results; empty if they must be equal to the bit."""
    if one.provenance.numerics != two.provenance.numerics:
        return "on other numerics (CPU, torch or threads)"
    return "since one of them was stopped early" if one.stopped or two.stopped else ""


def _check_parents(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    check = "earlier stages exist and succeeded"
    tally.expect(check, run.record.parents == run.spec.parents, run.name, "record and spec name different parents")
    for stage, key in run.spec.parents.items():
        parent = runs.get(key)
        fine = parent is not None and parent.record.outcome == Outcome.ok and parent.spec.stage == stage
        tally.expect(check, fine, run.name, f"{stage} {key} is missing, or did not succeed")


def _check_identity(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    """The cell, by which reports sort a run, agrees with the spec."""
    check, record, spec = "method, task, ratio and seeds match the spec", run.record, run.spec
    tally.expect(
        check,
        (record.method, record.stage) == (spec.method, spec.stage),
        run.name,
        "the record names a different stage",
    )
    data = spec.data
    known = shipped(Dataset, data.dataset) if data else None
    if data is not None and known is not None:
        text = f"dataset {known.name!r} is {'' if known.synthetic else 'not '}synthetic, but the spec says otherwise"
        tally.expect(SYNTHETIC, data.synthetic == known.synthetic, run.name, text)
    same = record.dataset == (data.dataset if data else None)
    synthetic = (data is not None and data.synthetic) or any(
        runs[k].record.synthetic for k in spec.parents.values() if k in runs
    )
    tally.expect(
        check, same and record.synthetic == synthetic, run.name, "dataset or `synthetic` differs from the spec"
    )
    cell = record.cell
    if spec.kind != "finetune":
        return
    if not tally.expect(check, cell is not None, run.name, "a fine-tuning without a cell") or cell is None:
        return
    shared = ("method", "task", "protocol", "label_ratio", "profile")
    in_cell = (*(str(getattr(cell, name)) for name in shared), cell.finetune_seed, cell.budget)
    in_spec = (*(str(getattr(spec, name)) for name in shared), spec.seed, spec.limits.budget)
    tally.expect(check, in_cell == in_spec, run.name, f"the cell has {in_cell}, the spec {in_spec}")
    for key in spec.parents.values():
        if key in runs:
            parent = runs[key].spec
            tally.expect(
                check, (parent.method, parent.seed) == (cell.method, cell.pretrain_seed), run.name,
                f"the cell has pre-training seed {cell.pretrain_seed}, but its backbone has {parent.method} seed {parent.seed}",
            )  # fmt: skip


def _check_labels(run: AuditedRun, tally: Tally) -> None:
    """A pre-training stage had the unlabelled view, unless its method declares that it needs labels."""
    spec = run.spec
    if spec.kind == "pretrain" and spec.data is not None:
        method, card = shipped(Method, spec.code_of), run.record.method_card
        needs = method.needs.labels if method is not None else card is not None and card.uses_labels
        text = f"{spec.method} was given the labelled view"
        tally.expect("no labels in pre-training", spec.data.view == "unlabelled" or needs, run.name, text)
    if run.record.label_isolation == "none" and spec.kind == "pretrain" and spec.data is not None:
        text = "not enforced: executor local provides the unlabelled view, but cannot hide other files"
        tally.note("labels were out of reach", "warning", run.name, text)


def _check_provenance(run: AuditedRun, tally: Tally) -> None:
    record, check = run.record, "versions recorded"
    known = record.provenance.packages.get("torch") is not None and bool(record.provenance.python)
    tally.expect(check, known, run.name, "no version of torch or Python")
    if record.provenance.git_dirty:
        tally.note(check, "warning", run.name, "the code had uncommitted changes")
    if record.executor in ("docker", "podman"):
        tally.expect("image recorded", bool(record.image), run.name, "a container run without its image id")


def _check_chain(store: Store, runs: Runs, completed: chain.Chain | None, tally: Tally) -> None:
    """Every completed run in the chain exists, and every run is in the chain. `completed` was read before the runs."""
    check = "no run was removed or inserted"
    if completed is None:
        if runs and chain.read(store.root) is None:
            tally.note(check, "warning", "store", f"no {chain.CHAIN_FILE}: written by an older version, or removed")
        return
    tally.expect("chain is intact", not completed.faults, "store", "; ".join(completed.faults[:3]))
    kept = {sha256 for run in runs.values() for sha256 in _record_hashes(run)}
    named = _attempts_in(completed)
    lost = chain.hashes_of(completed.links, (chain.LOST,))
    withdrawn = {link.record_sha256: link.why for link in completed.links if link.outcome == chain.WITHDRAWN}
    for link in completed.links:
        if link.outcome in chain.NOTES:
            continue
        subject = f"{link.kind}/{link.key}"
        if link.record_sha256 in lost:
            text = f"attempt {link.attempt}, {link.outcome}, was lost and the stage was rerun"
            tally.note(check, "warning", subject, text)
        elif link.record_sha256 in withdrawn and link.record_sha256 in kept:
            tally.note(
                check, "failed", subject, "was withdrawn, but is here: withdraw it again (`bench clean --withdraw`)"
            )
        elif link.record_sha256 in withdrawn:
            text = f"attempt {link.attempt}, {link.outcome}, was withdrawn: {withdrawn[link.record_sha256]}"
            tally.note(check, "warning", subject, text)
        elif link.record_sha256 in kept and link.found:
            tally.note(
                check, "warning", subject, "was here before the chain began: of an older version, or copied here"
            )
        elif link.record_sha256 in kept:
            tally.expect(check, True, "", "")
        elif (store.partial(link.key) / f"complete-{link.kind}").is_dir():
            tally.note(check, "warning", subject, "publication was interrupted; rerun the stage")
        elif not _is_here_now(store, link):
            text = f"attempt {link.attempt}, {link.outcome}, was completed here, but is missing or changed"
            tally.expect(check, False, subject, text)
    unnamed = [run for run in runs.values() if run.record.sha256 not in named]
    since = _attempts_in(chain.read(store.root) if unnamed else None)
    pruned = chain.hashes_of(completed.links, (chain.PRUNED,))
    for run in runs.values():
        fine = run.record.sha256 in named or run.record.sha256 in since
        if not fine and run.record.sha256 in pruned:
            text = "the chain names only its pruning: it is of an older version, or was inserted before"
            tally.note(check, "warning", run.name, text)
        else:
            tally.expect(check, fine, run.name, "was not completed in this store: inserted, or changed")


def _attempts_in(known: chain.Chain | None) -> set[str]:
    """The hashes of the attempts of a chain, without those that only notes name."""
    return {link.record_sha256 for link in (known.links if known else ()) if link.outcome not in chain.NOTES}


def _record_hashes(run: AuditedRun) -> set[str]:
    """Hashes of the records of all attempts at a run, as written."""
    hashes = set()
    for path in (run.folder / ATTEMPTS).glob(f"*/{RECORD}"):
        try:
            hashes.add(read_json(path)["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return hashes


def _is_here_now(store: Store, link: chain.Link) -> bool:
    """Whether a run that was missing when the store was read exists now: it was being published."""
    try:
        run = read_run(store.folder(link.kind, link.key), SpecReader())
    except WrongUse:
        return False
    return link.record_sha256 in _record_hashes(run)
