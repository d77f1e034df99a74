"""The stages of a matrix of cells: done, stale (and why), failed or to do, with estimates of time and size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import Keys, StageSpec
from pretrain_bench.harness.planning.code_digest import code_hashes
from pretrain_bench.harness.planning.estimate import Estimate, History
from pretrain_bench.harness.planning.stage_specs import (
    PlannedCell,
    PlannedStage,
)
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import CODE, KINDS, RECORD, SPEC, Store

MAX_REASONS = 3


class State(StrEnum):
    """State of a stage before anything runs."""

    done = "done"
    failed = "failed"
    stale = "stale"
    running = "running"
    to_do = "to do"
    waiting = "waiting"


class StageState(NamedTuple):
    """One stage of a plan. `estimate` is None for a finished stage."""

    planned: PlannedStage
    key: str
    state: State
    reason: str
    estimate: Estimate | None

    @property
    def known_key(self) -> str | None:
        """The key; None while the stage waits for data, whose content is part of its key."""
        return None if self.state == State.waiting else self.key


class Total(NamedTuple):
    """Totals over stages. Times assume one stage after the other."""

    stages: int
    seconds: float
    low: float
    """Seconds if every estimate is too high by its factor."""
    high: float
    """Seconds if every estimate is too low by its factor."""
    gpu_seconds: float
    bytes: int
    """Bytes of artifacts in the store."""

    @classmethod
    def of(cls, stages: Iterable[StageState]) -> Total:
        """The sum of the stages that have an estimate."""
        known = [(stage.planned.spec.device, stage.estimate) for stage in stages if stage.estimate is not None]
        return cls(
            len(known),
            sum(e.seconds for _, e in known),
            sum(e.seconds / e.within for _, e in known),
            sum(e.seconds * e.within for _, e in known),
            sum(e.seconds for device, e in known if device == "cuda"),
            sum(e.bytes for _, e in known),
        )


def to_run(stages: Iterable[StageState], retry_failed: bool = False) -> list[StageState]:
    """The stages that `bench run` would start; failed ones only if they are retried."""
    return [stage for stage in stages if stage.state not in _settled(retry_failed)]


def _settled(retry_failed: bool) -> tuple[State, ...]:
    """The states in which a stage does not run."""
    return (State.done,) if retry_failed else (State.done, State.failed)


def states(
    cells: Iterable[PlannedCell],
    store: Store,
    machine_cpus: int,
    rates: Rates | None = None,
    retry_failed: bool = False,
    later: Iterable[PlannedStage] = (),
) -> list[StageState]:
    """Each stage of the cells once, in order; estimated for another machine if its `rates` are given. A stage whose data are only
    expected is `waiting`, since no run can have its key. `later`: other stages that will run, which may build on these.
    """
    keys = Keys()
    stages: dict[str, PlannedStage] = {}
    waiting: dict[str, str] = {}
    for cell in cells:
        unprepared: list[str] = []
        for planned in cell.stages:
            if planned.data is not None and planned.data.is_expected:
                unprepared.append(planned.data.dataset.name)
            key = keys.of(planned.spec)
            stages.setdefault(key, planned)
            if unprepared and key not in waiting:
                waiting[key] = f"for data: {', '.join(dict.fromkeys(unprepared))}"
    past = dict(_records(store))
    history = History((record, folder) for folder, record in past.values())
    history.calibrate(stages.values(), machine_cpus)
    older, under_way = _Older(store, past, set(stages)), {folder.name for folder in store.partial_folders()}
    planned_states = []
    for key, planned in stages.items():
        estimate = history.estimate(planned, machine_cpus, rates)
        if key in waiting:
            planned_states.append(StageState(planned, key, State.waiting, waiting[key], estimate))
            continue
        earlier = past.get(key)
        if earlier is not None and earlier[1]["outcome"] == Outcome.ok:
            planned_states.append(StageState(planned, key, State.done, "", None))
            continue
        if earlier is not None:
            reason = f"{earlier[1]['outcome']}: {earlier[1]['message']}"
            state = State.failed
        elif key in under_way and (who := store.held_by(key)):
            state, reason = State.running, who
        else:
            reason = older.why(planned)
            state = State.stale if reason else State.to_do
        planned_states.append(StageState(planned, key, state, reason, estimate))
    needed = {key for planned in later for key in planned.spec.parents.values()}
    again = _pruned_but_needed(planned_states, past, needed, _settled(retry_failed))
    return [
        _to_do_again(s, history.estimate(s.planned, machine_cpus, rates)) if s.key in again else s
        for s in planned_states
    ]


def _pruned_but_needed(
    stages: list[StageState],
    past: Mapping[str, tuple[Path, dict[str, Any]]],
    needed: set[str],
    settled: tuple[State, ...],
) -> set[str]:
    """Keys of the done stages that were pruned, and that `needed` keys or a stage in another state than `settled` build on."""
    again: set[str] = set()
    for stage in reversed(stages):
        if stage.state == State.done and stage.key in needed and pruned(past[stage.key][0]):
            again.add(stage.key)
        if stage.state not in settled or stage.key in again:
            needed = needed | set(stage.planned.spec.parents.values())
    return again


def _to_do_again(stage: StageState, estimate: Estimate) -> StageState:
    return stage._replace(state=State.to_do, reason="its artifacts were pruned", estimate=estimate)


def _records(store: Store) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Key to folder and plain content of every readable record; an audit reports damaged ones."""
    for kind in KINDS:
        folder = store.root / kind
        place = os.fspath(folder)
        for key in os.listdir(folder) if folder.is_dir() else []:
            try:
                record = read_json(f"{place}/{key}/{RECORD}")  # creating a Path for every name takes as long as reading
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and isinstance(record.get("outcome"), str):
                yield key, (folder / key, record)


class _Older:
    """Finds runs of the same purpose as a stage, made with other code, settings or data."""

    def __init__(self, store: Store, past: Mapping[str, tuple[Path, dict[str, Any]]], wanted: set[str]) -> None:
        self.store, self.past, self.wanted = store, past, wanted
        self._index: dict[tuple[object, ...], tuple[Path, dict[str, Any]]] | None = None

    def why(self, planned: PlannedStage) -> str:
        """The changes since the newest such run; empty if none exists."""
        if self._index is None:
            self._index = dict(self._identities())
        earlier = self._index.get(_identity(planned))
        if earlier is None:
            return ""
        reasons = differences(earlier[1], planned.spec, earlier[0])
        more = f", and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
        return "; ".join(reasons[:MAX_REASONS]) + more

    def _identities(self) -> Iterator[tuple[tuple[object, ...], tuple[Path, dict[str, Any]]]]:
        runs = [(f, r) for key, (f, r) in self.past.items() if key not in self.wanted and r["outcome"] == Outcome.ok]
        for folder, record in sorted(runs, key=lambda run: str(run[1].get("ended_at"))):
            try:
                spec = read_json(folder / SPEC, below=folder)
                yield _identity_of_record(record, spec), (folder, spec)
            except (OSError, ValueError, KeyError, TypeError):
                continue


def _identity(planned: PlannedStage) -> tuple[object, ...]:
    """The purpose of a stage, without its settings."""
    if planned.cell is not None:
        return _identity_of_cell(planned.cell)
    spec = planned.spec
    dataset = spec.data.dataset if spec.data is not None else None
    return (spec.kind, spec.method, spec.stage, spec.task, dataset, spec.seed, spec.limits.budget, spec.profile)


def _identity_of_record(record: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[object, ...]:
    """The same of a run in a store."""
    if record.get("cell"):
        return _identity_of_cell(Cell.model_validate(record["cell"]))
    dataset = (spec["data"] or {}).get("dataset")
    names = (spec["kind"], spec["method"], spec["stage"], spec.get("task"), dataset)
    return (*names, spec["seed"], spec["limits"]["budget"], spec["profile"])


def _identity_of_cell(cell: Cell) -> tuple[object, ...]:
    names = ("finetune", cell.method, cell.pretrain_dataset, cell.task, cell.protocol, str(cell.label_ratio))
    return (*names, cell.pretrain_seed, cell.finetune_seed, cell.budget, cell.profile)


def differences(old: Mapping[str, Any], new: StageSpec, folder: Path) -> list[str]:
    """The inputs of a stage's key that have changed since `folder` was written, as text."""
    now = new.model_dump(mode="json")
    differing = []
    if old["code_sha256"] != now["code_sha256"]:
        differing.append(_changed_code(folder, new))
    if old.get("parents") != now["parents"]:
        differing.append("an earlier stage is stale or new")
    if (old.get("data") or {}).get("manifest_sha256") != (now["data"] or {}).get("manifest_sha256"):
        differing.append(f"data of {(now['data'] or {}).get('dataset')} changed")
    if (old.get("split") or {}).get("sha256") != (now["split"] or {}).get("sha256"):
        differing.append("the split changed")
    if (old.get("label_ratio") or {}).get("sha256") != (now["label_ratio"] or {}).get("sha256"):
        differing.append("the file of the official label list changed")
    for field in ("limits", "recipe", "network", "settings", "probe"):
        differing += _changed_fields(field, old.get(field) or {}, now.get(field) or {})
    for field in (
        "profile_version", "precision", "threads", "sparse_backend", "device", "imagenet_weights_sha256", "contract_version",
    ):  # fmt: skip
        if old.get(field) != now[field]:
            differing.append(f"{field} {old.get(field)} -> {now[field]}")
    if old.get("checkpoint") != now.get("checkpoint"):
        differing.append("it imports another file, or the same file with another origin")
    return differing or ["its settings changed"]


def _changed_code(folder: Path, new: StageSpec) -> str:
    try:
        before = read_json(folder / CODE, below=folder)
        after = code_hashes(new.kind, new.code_of, new.part)
    except Exception:  # a user's method, or a run without the list
        return "its code changed"
    names = sorted({m for m in {*before, *after} if before.get(m) != after.get(m)})
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"code of {', '.join(names[:2])}{rest} changed" if names else "its code changed"


def _changed_fields(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{where}.{name} {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
