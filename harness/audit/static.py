"""Checks of a store's files against themselves and each other; nothing is computed from data, and nothing runs."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.splits import split_scenes
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
from pretrain_bench.benchmarks.support.foreign_files import plain_size_and_sha256, read_json
from pretrain_bench.harness.audit.contamination import check_contamination, check_official_labels
from pretrain_bench.harness.audit.coverage import check_coverage
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.contract.events import EVENTS_FILE, Step, read_events
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.run_length import budget_problem
from pretrain_bench.harness.contract.stage import StageSpec, canonical_json
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import ARTIFACTS, ATTEMPTS, KINDS, RECORD, Store, read_record, read_spec

CPU_SHARE, CPU_SECONDS = 0.25, 10.0
"""How far a stage's own CPU seconds and those seen from outside may differ: sampling misses the last moments of a process."""


class AuditedRun(NamedTuple):
    """One run folder whose record and spec could be read."""

    folder: Path
    record: Record
    spec: StageSpec

    @property
    def name(self) -> str:
        """How findings call it."""
        return f"{self.record.kind}/{self.record.key}"


def audit_files(store: Store, tally: Tally, wanted: list[str] | None = None) -> dict[str, AuditedRun]:
    """Every check on files; returns the runs that could be read, by key. `wanted` are keys to look at, None for all."""
    runs = read_runs(store, tally)
    completed = chain.read(store.root)
    lost = {(k.key, k.attempt) for k in (completed.links if completed else ()) if k.outcome == chain.LOST}
    specs = {key: run.spec for key, run in runs.items()}
    for run in runs.values():
        if wanted is None or run.record.key in wanted:
            _check_attempts(run, {number for key, number in lost if key == run.record.key}, tally)
            _check_run(run, runs, tally)
            check_contamination(run.record, run.spec, specs, tally)
    _check_chain(store, runs, tally)
    _check_groups(runs, tally)
    return runs


def read_runs(store: Store, tally: Tally) -> dict[str, AuditedRun]:
    """Read all runs of a store; a run that does not parse becomes a finding."""
    runs = {}
    for kind in KINDS:
        for folder in sorted((store.root / kind).glob("*")):
            subject = f"{kind}/{folder.name}"
            if not (folder / RECORD).is_file():
                tally.note("every folder is a run", "warning", subject, f"holds no {RECORD}; not a run of this program")
                continue
            try:
                record, spec = read_record(folder / RECORD), read_spec(folder)
            except WrongUse as error:
                tally.expect("record and spec parse and match their hashes", False, subject, str(error))
                continue
            tally.expect("record and spec parse and match their hashes", True, subject, "")
            # `read_spec` has computed the key from the spec as it was written.
            same = (record.kind, record.key) == (kind, folder.name) == (spec.kind, folder.name)
            if tally.expect("key recomputed from the spec", same, subject, f"the spec is of a {spec.kind}"):
                runs[record.key] = AuditedRun(folder, record, spec)
    return runs


def _check_run(run: AuditedRun, runs: dict[str, AuditedRun], tally: Tally) -> None:
    if run.record.outcome == Outcome.ok:
        _check_artifacts(run, tally)
    _check_parents(run, runs, tally)
    _check_identity(run, runs, tally)
    _check_budget(run, tally)
    _check_ledger(run, tally)
    _check_labels(run, tally)
    _check_split(run, tally)
    check_coverage(run.record, run.spec, tally)
    check_official_labels(run.record, run.spec, tally)
    _check_provenance(run, tally)


def _check_artifacts(run: AuditedRun, tally: Tally) -> None:
    """Every file that the record names exists with its hash, or its deletion is recorded; and no other file exists."""
    check, gone = "artifacts match their hashes", pruned(run.folder)
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
        tally.expect(check, actual == (entry.bytes, entry.sha256), run.name, f"{name} has another content")
    extra = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if not p.is_dir() and p.relative_to(folder).as_posix() not in run.record.artifacts
    )
    tally.expect(check, not extra, run.name, f"{extra[0] if extra else ''} is not in the record")


def _check_attempts(run: AuditedRun, lost: set[int], tally: Tally) -> None:
    """Every attempt before the one that counts is there, or the chain admits its loss."""
    check, folder = "every attempt is kept", run.folder / ATTEMPTS
    numbers = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    last = run.record.attempt
    all_numbers = set(range(1, last + 1))
    tally.expect(
        check,
        all_numbers - lost <= {*numbers} <= all_numbers,
        run.name,
        f"attempts {numbers}, the record is of attempt {last}",
    )
    for number in numbers:
        try:
            record = read_record(folder / str(number) / RECORD)
        except WrongUse as error:
            tally.expect(check, False, run.name, str(error))
            continue
        if number == last:
            tally.expect(check, record == run.record, run.name, "the last attempt's record is not the one that counts")
        else:
            fits = (record.key, record.attempt) == (run.record.key, number) and record.outcome != Outcome.ok
            tally.expect(check, fits, run.name, f"attempts/{number} holds a record of another run, or one that was ok")


def _check_parents(run: AuditedRun, runs: dict[str, AuditedRun], tally: Tally) -> None:
    check = "earlier stages are there and ended well"
    tally.expect(check, run.record.parents == run.spec.parents, run.name, "the record names others than the spec")
    for stage, key in run.spec.parents.items():
        parent = runs.get(key)
        fine = parent is not None and parent.record.outcome == Outcome.ok and parent.spec.stage == stage
        tally.expect(check, fine, run.name, f"{stage} {key} is not there, or did not end well")


def _check_identity(run: AuditedRun, runs: dict[str, AuditedRun], tally: Tally) -> None:
    """The cell, by which a report sorts a run, agrees with the spec."""
    check, record, spec = "method, task, ratio and seeds are those of the spec", run.record, run.spec
    tally.expect(
        check, (record.method, record.stage) == (spec.method, spec.stage), run.name, "the record names another stage"
    )
    data = spec.data
    same = record.dataset == (data.dataset if data else None)
    synthetic = (data is not None and data.synthetic) or any(
        runs[k].record.synthetic for k in spec.parents.values() if k in runs
    )
    tally.expect(check, same and record.synthetic == synthetic, run.name, "dataset or `synthetic` is not the spec's")
    cell = record.cell
    if spec.kind != "finetune":
        return
    if not tally.expect(check, cell is not None, run.name, "a fine-tuning without a cell") or cell is None:
        return
    shared = ("method", "task", "protocol", "label_ratio", "profile")
    in_cell = (*(str(getattr(cell, name)) for name in shared), cell.finetune_seed, cell.budget)
    in_spec = (*(str(getattr(spec, name)) for name in shared), spec.seed, spec.limits.budget)
    tally.expect(check, in_cell == in_spec, run.name, f"the cell says {in_cell}, the spec {in_spec}")
    for key in spec.parents.values():
        if key in runs:
            parent = runs[key].spec
            tally.expect(
                check, (parent.method, parent.seed) == (cell.method, cell.pretrain_seed), run.name,
                f"pre-training seed {cell.pretrain_seed} in the cell, {parent.method} with seed {parent.seed} behind it",
            )  # fmt: skip


def _check_budget(run: AuditedRun, tally: Tally) -> None:
    """The limits are those of the budget that ships under this name and version, and were kept."""
    spec, limits = run.spec, run.spec.limits
    if run.record.outcome == Outcome.ok:
        trains_nothing = spec.data is None
        problem = budget_problem(limits, run.record.ledger, trains_nothing or run.record.stopped is not None)
        tally.expect("budget kept", problem is None, run.name, problem or "")
    if limits.budget not in available(Budget):
        tally.note(
            "budget is the one that ships", "not checked", run.name, f"budget {limits.budget!r} is the user's own"
        )
        return
    budget = find(Budget, limits.budget)
    if budget.version != limits.budget_version:
        text = f"budget {limits.budget!r} v{limits.budget_version}; here is v{budget.version}"
        tally.note("budget is the one that ships", "not checked", run.name, text)
        return
    half = budget.pretrain if spec.kind == "pretrain" else budget.finetune
    share = 1.0
    if spec.kind == "pretrain" and spec.method in available(Method):
        share = next((s.share for s in find(Method, spec.method).stages if s.name == spec.stage), 1.0)
    uniformity = "at_most" if spec.takes_no_step else half.uniformity
    same = (limits.currency, limits.uniformity, limits.wall_seconds) == (half.currency, uniformity, half.wall_seconds)
    tally.expect(
        "budget is the one that ships", same and abs(limits.amount - half.amount * share) < 1e-6, run.name,
        f"{limits.uniformity} {limits.amount:g} {limits.currency.value}; {budget.name} v{budget.version} gives this stage "
        f"{uniformity} {half.amount * share:g}",
    )  # fmt: skip


def _check_ledger(run: AuditedRun, tally: Tally) -> None:
    """The stage's own ledger agrees with its events and with the usage measured from outside."""
    record = run.record
    if record.outcome != Outcome.ok:
        return
    steps = [e.step for e in read_events(run.folder / EVENTS_FILE) if isinstance(e, Step)]
    last_step = max(steps, default=0)
    tally.expect(
        "ledger agrees with the events", last_step == record.ledger.optimizer_steps, run.name,
        f"{record.ledger.optimizer_steps} steps in the ledger, {last_step} in the events",
    )  # fmt: skip
    if record.attempt > 1:
        return  # the ledger covers all attempts, the usage measured from outside only the last
    own, seen = record.ledger.cpu_seconds, record.measured.cpu_seconds
    tally.expect(
        "ledger agrees with what was seen from outside", own - seen <= CPU_SHARE * own + CPU_SECONDS
        and seen - own <= CPU_SHARE * seen + CPU_SECONDS, run.name,
        f"{own:.0f} CPU seconds by its own account, {seen:.0f} seen from outside",
    )  # fmt: skip


def _check_labels(run: AuditedRun, tally: Tally) -> None:
    """A pre-training stage had the view without labels, unless its method declares that it needs them."""
    spec = run.spec
    if spec.kind == "pretrain" and spec.data is not None:
        needs = spec.method in available(Method) and find(Method, spec.method).needs.labels
        text = f"{spec.method} was given the labelled view"
        tally.expect("no labels in pre-training", spec.data.view == "unlabelled" or needs, run.name, text)
    if run.record.label_isolation == "none" and spec.kind == "pretrain" and spec.data is not None:
        text = "not enforced: executor local gives the unlabelled view and cannot hide other files"
        tally.note("labels were out of reach", "warning", run.name, text)


def _check_split(run: AuditedRun, tally: Tally) -> None:
    """The split's hash is that of its scenes, no scene is in two parts, and this version would make the same split."""
    spec, check = run.spec, "split"
    if spec.split is None or spec.data is None or spec.label_ratio is None:
        return
    split = spec.split
    parts = {
        "version": split.version, "train": sorted(split.train), "selection": sorted(split.selection),
        "test": sorted(split.test),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    tally.expect(check, digest == split.sha256, run.name, "the split's hash is not that of its scenes")
    scenes = [*split.train, *split.selection, *split.test]
    tally.expect(check, len(scenes) == len(set(scenes)), run.name, "a scene stands in two parts of the split")
    try:
        dataset = find(Dataset, spec.data.dataset)
    except BenchError:
        return
    # With less than all labels, the training scenes that the ratio leaves out are not in the spec.
    if dataset.split_file is None or not scenes:
        prefixes = dataset.test_scene_prefixes
        if prefixes:
            wrong = [s for s in (*split.train, *split.selection) if s.startswith(prefixes)]
            tally.expect(check, not wrong, run.name, f"test scene {wrong[0] if wrong else ''} is trained on")
        return
    try:
        official = split_scenes(scenes, dataset, LabelRatio())
    except BenchError as error:
        tally.expect(check, False, run.name, str(error))
        return
    tally.expect(
        check, set(split.test) == set(official.test), run.name, "its test scenes are not the dataset's test scenes"
    )


def _check_provenance(run: AuditedRun, tally: Tally) -> None:
    record, check = run.record, "versions recorded"
    known = record.provenance.packages.get("torch") is not None and bool(record.provenance.python)
    tally.expect(check, known, run.name, "no version of torch or Python")
    if record.provenance.git_dirty:
        tally.note(check, "warning", run.name, "made by code with uncommitted changes")
    if record.executor in ("docker", "podman"):
        tally.expect("image recorded", bool(record.image), run.name, "a container run without the id of its image")


def _check_chain(store: Store, runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Every completed run that the chain names exists, and the chain names every run."""
    check, completed = "no run was taken away or put in", chain.read(store.root)
    if completed is None:
        if runs:
            tally.note(check, "warning", "store", f"no {chain.CHAIN_FILE}: made by an older version, or taken away")
        return
    tally.expect("chain is whole", not completed.faults, "store", "; ".join(completed.faults[:3]))
    kept = {}
    for run in runs.values():
        for path in (run.folder / ATTEMPTS).glob(f"*/{RECORD}"):
            try:
                kept[read_json(path)["sha256"]] = run.name
            except (OSError, ValueError, KeyError, TypeError):
                continue
    named = {link.record_sha256 for link in completed.links}
    lost = {link.record_sha256 for link in completed.links if link.outcome == chain.LOST}
    for link in completed.links:
        if link.outcome == chain.LOST:
            continue
        if link.record_sha256 in lost:
            text = f"attempt {link.attempt}, {link.outcome}, was lost and the stage ran again"
            tally.note(check, "warning", f"{link.kind}/{link.key}", text)
        elif link.record_sha256 in kept:
            tally.expect(check, True, "", "")
        elif (store.partial(link.key) / f"complete-{link.kind}").is_dir():
            tally.note(check, "warning", f"{link.kind}/{link.key}", "cut off while it was published; run it again")
        else:
            text = f"attempt {link.attempt}, {link.outcome}, was completed here and is gone or was changed"
            tally.expect(check, False, f"{link.kind}/{link.key}", text)
    for run in runs.values():
        tally.expect(check, run.record.sha256 in named, run.name, "was not completed in this store: put in, or changed")


def _check_groups(runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Across runs: one budget for all methods that are compared, and seeds that gave different results."""
    totals: dict[tuple[object, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    tunings: dict[tuple[object, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs.values():
        if run.record.cell is None:
            continue
        cell = run.record.cell
        group = (cell.task, run.record.dataset, cell.protocol, str(cell.label_ratio), cell.budget, cell.profile)
        limits = run.spec.limits
        tunings[group][canonical_json(limits.model_dump(mode="json"))].add(cell.method)
        total, currency = _pretraining_total(run, runs)
        if total is not None:
            totals[group][f"{total:g} {currency}"].add(cell.method)
    for across, by_total in totals.items():
        text = "; ".join(f"{total} for {', '.join(sorted(who))}" for total, who in sorted(by_total.items()))
        if len(set().union(*by_total.values())) > 1:  # one method has nothing to differ from
            tally.expect("equal budgets in pre-training", len(by_total) == 1, " ".join(map(str, across)), text)
    for compared, by_limit in tunings.items():
        text = "; ".join(", ".join(sorted(who)) for who in by_limit.values())
        if len(set().union(*by_limit.values())) > 1:
            tally.expect("equal budgets in fine-tuning", len(by_limit) == 1, " ".join(map(str, compared)), text)
    _check_seeds(runs, tally)


def _pretraining_total(run: AuditedRun, runs: dict[str, AuditedRun]) -> tuple[float | None, str]:
    """The budget that all pre-training stages behind a run were given together; None where one is missing or none trains."""
    waiting, seen, total, currency = list(run.spec.parents.values()), set(), 0.0, ""
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        if key not in runs:
            return None, ""
        parent = runs[key].spec
        waiting += parent.parents.values()
        if parent.kind == "pretrain":
            total += parent.limits.amount
            currency = parent.limits.currency.value
    pretrainings = [runs[key].spec for key in seen if runs[key].spec.kind == "pretrain"]
    trains = any(spec.data is not None for spec in pretrainings)
    return (total, currency) if trains else (None, "")


def _check_seeds(runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Runs that differ in a seed alone left different weights: equal ones were copied, or the seed was not used."""
    name = "backbone.safetensors"
    alike: dict[str, list[AuditedRun]] = defaultdict(list)
    for run in runs.values():
        if run.record.outcome == Outcome.ok and run.spec.kind == "pretrain" and name in run.record.artifacts:
            alike[canonical_json(run.spec.model_dump(mode="json", exclude={"seed", "parents"}))].append(run)
    for group in alike.values():
        if len({run.spec.seed for run in group}) < 2:
            continue  # one seed has nothing to differ from
        first: dict[str, AuditedRun] = {}
        for run in group:
            other = first.setdefault(run.record.artifacts[name].sha256, run)
            text = f"the same weights as {other.name}: seeds {run.spec.seed} and {other.spec.seed}"
            tally.expect("seeds give different results", other.spec.seed == run.spec.seed, run.name, text)
