"""Check runs that a report puts into one table: all methods have equal limits, profile, network, recipe and code."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json as parse_json

from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, behind
from pretrain_bench.harness.contract.stage import canonical_json
from pretrain_bench.harness.store.spec_reader import SharedSpec
from pretrain_bench.harness.store.store import CODE

EQUAL_PRETRAINING = "equal budgets in pre-training"
ONE_CODE, ONE_PROFILE = "one code in a table", "one profile in a table"
ONE_NETWORK, ONE_RECIPE = "one network in a table", "one evaluation recipe in a table"
MOST_SHARED_BYTES = 1 << 18
"""A larger list of code, which no honest run has, is not kept."""
Table = tuple[str, ...]
"""Task, dataset, protocol, label ratio, budget and profile of a cell."""


class Aspect(NamedTuple):
    """A property that all methods of a table must share: the name of its check, and its fields for a run as canonical JSON.
    `within` narrows the comparison, for example to one dataset, since epochs of different data differ in steps."""

    check: str
    fields: str
    within: str = ""


def check_tables(runs: Runs, tally: Tally) -> None:
    """Fail where the methods of one table differ in anything that a fair comparison needs equal."""
    shared: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs.values():
        if run.record.cell is not None:
            stages = behind(run, runs) or ()
            for check, fields, within in _aspects(run.shared, tuple(stage.shared for stage in stages)):
                shared[(check, within, *_table(run))][fields].add(run.record.cell.method)
    for (check, _, *table), by_value in shared.items():
        if len(set().union(*by_value.values())) > 1:  # a single method has no counterpart
            tally.expect(check, len(by_value) == 1, " ".join(table), _in_words(by_value))
    _note_imported(runs, tally)
    _check_code(runs, tally)


def _note_imported(runs: Runs, tally: Tally) -> None:
    """Note rows of imported checkpoints: the budget behind them is unknown."""
    imported: dict[str, set[str]] = defaultdict(set)
    for run in runs.values():
        if run.record.cell is not None and any(stage.spec.checkpoint for stage in behind(run, runs) or ()):
            imported[" ".join(_table(run))].add(run.record.cell.method)
    for table, methods in imported.items():
        text = f"{', '.join(sorted(methods))}: imported, so the budget of its pre-training is unknown"
        tally.note(EQUAL_PRETRAINING, "not checked", table, text)


def _table(run: AuditedRun) -> Table:
    cell = run.record.cell
    assert cell is not None
    return (cell.task, run.record.dataset or "-", cell.protocol, str(cell.label_ratio), cell.budget, cell.profile)


@lru_cache(maxsize=1024)
def _aspects(run: SharedSpec, behind: tuple[SharedSpec, ...]) -> list[Aspect]:
    """The properties that a run, with the stages behind it, must share with the others of its table."""
    spec, stages, aspects = run.spec, [stage.spec for stage in behind], list[Aspect]()

    def add(check: str, fields: dict[str, Any], within: str = "") -> None:
        aspects.append(Aspect(check, canonical_json(fields), within))

    add("equal budgets in fine-tuning", spec.limits.model_dump(mode="json"))
    pretrained = [s for s in stages if s.kind == "pretrain"]
    if any(s.data is not None for s in pretrained):
        limits = pretrained[-1].limits
        total = sum(s.limits.amount for s in pretrained)
        horizons = sorted({s.limits.schedule_horizon for s in pretrained if s.data is not None})
        add(EQUAL_PRETRAINING, {limits.currency.value: total, "schedule_horizon": ", ".join(horizons)})
    for stage in (spec, *stages):
        add(ONE_PROFILE, {"profile": stage.profile, "version": stage.profile_version})
        add(ONE_NETWORK, {**stage.network.model_dump(mode="json"), "precision": stage.precision})
    evaluation = {**(spec.recipe or {}), "selection": spec.selection, "metric": spec.headline_metric}
    if spec.probe is not None:
        evaluation["probe"] = spec.probe.model_dump(mode="json")
        evaluation["features"] = [s.recipe for s in stages if s.kind == "features"]
    add(ONE_RECIPE, evaluation, spec.data.manifest_sha256 if spec.data else "")
    return aspects


def _in_words(by_value: dict[str, set[str]]) -> str:
    """The fields that differ, with the methods of each value: `batch 2 for csc; batch 3 for scratch`."""
    values = [(json.loads(text), who) for text, who in sorted(by_value.items())]
    names = {name for fields, _ in values for name in fields}
    differing = sorted(n for n in names if len({canonical_json(fields.get(n)) for fields, _ in values}) > 1)
    return "; ".join(
        f"{', '.join(f'{name} {fields.get(name)}' for name in differing)} for {', '.join(sorted(who))}"
        for fields, who in values
    )


def _check_code(runs: Runs, tally: Tally) -> None:
    """The stages behind one table used the same code: every module listed by two of them has the same content. Runs of one
    clean commit cannot differ, so a difference fails; runs of different commits may differ, with a warning."""
    tables: dict[Table, dict[str, AuditedRun]] = defaultdict(dict)
    for run in runs.values():
        if run.record.cell is not None:
            table = (*_table(run), run.spec.code_sha256)  # different fine-tuning code means a different table
            tables[table] |= {stage.name: stage for stage in (run, *(behind(run, runs) or ()))}
    listed: dict[str, dict[str, str]] = {}
    for table, stages in tables.items():
        seen: dict[str, tuple[str, AuditedRun]] = {}
        differing: dict[str, tuple[str, AuditedRun, AuditedRun]] = {}
        lists = set[int]()
        for name, stage in stages.items():
            if name not in listed:
                listed[name] = code_list(stage)
            if not differing and id(listed[name]) in lists:
                continue  # the same list as of a stage that does not differ
            lists.add(id(listed[name]))
            for module, sha256 in listed[name].items():
                first, other = seen.setdefault(module, (sha256, stage))
                if first != sha256:
                    differing.setdefault(stage.name, (module, other, stage))
        subject = " ".join(table[:-1])
        if not differing and seen:
            tally.expect(ONE_CODE, True, subject, "")
        for module, one, two in differing.values():
            text = f"{module} differs between {one.name} ({one.spec.method}) and {two.name} ({two.spec.method})"
            commits = {s.record.provenance.git_commit for s in (one, two)}
            clean = not any(s.record.provenance.git_dirty for s in (one, two))
            if len(commits) == 1 and None not in commits and clean:
                tally.expect(ONE_CODE, False, subject, f"{text}, although both name one clean commit")
            else:
                tally.note(ONE_CODE, "warning", subject, text)


def code_list(run: AuditedRun) -> dict[str, str]:
    """Map each module or file to its hash, from the run's code.json; empty if it is unreadable."""
    try:
        content = read_plain(run.folder / CODE, below=run.folder)
        return _parsed(content) if len(content) <= MOST_SHARED_BYTES else _parsed.__wrapped__(content)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=256)
def _parsed(content: bytes) -> dict[str, str]:
    """A list of code: one object for all runs of one code, of which a store holds thousands."""
    listed = parse_json(content)
    return {str(k): str(v) for k, v in listed.items()} if isinstance(listed, dict) else {}
