"""Status: the running stages of a store, and the outcomes of the others."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.probes import FINETUNE, Protocol
from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.harness.clusters.base import JobState
from pretrain_bench.harness.clusters.slurm import under_way as jobs_of
from pretrain_bench.harness.contract.events import EVENTS_FILE, Start, Step
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import STAGE_FILE
from pretrain_bench.harness.executors.base import STALL_FACTOR
from pretrain_bench.harness.planning.stage_specs import features_title, finetune_title
from pretrain_bench.harness.running.last_events import first_and_last
from pretrain_bench.harness.running.progress_note import CommandUnderWay, commands_under_way
from pretrain_bench.harness.store.store import KINDS, RECORD, SPEC, Store

STALLED_SECONDS, STALLED_BEFORE_STEPS_SECONDS = 60.0, 600.0
"""A shorter silence is never reported, whatever the duration of a step."""
RATE_STEPS = 50
"""Steps over which the current rate is averaged, the latest ones."""
DAMAGED = "damaged"
PARENT_KINDS = ("pretrain", "features")
"""What a fine-tuning or a probe builds on; each has the pre-training seed."""


class StageUnderWay(NamedTuple):
    """A stage that runs, or that was left and can be resumed."""

    key: str
    stage: str
    state: str
    """`running`; `stalled`: it has sent no event for far longer than a step takes; `interrupted`; or the state of its job, as
    `pending`."""
    by: str | None
    """The process that runs it."""
    step: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    silent_seconds: float | None
    """Time since the last event of a running stage."""
    job: str | None = None
    """The job that it is part of, as `slurm:17_3`."""
    host: str = ""
    """The node of that job."""
    seeds: str = "-"
    """Of a pre-training, and of the features of linear probes, its seed; of a fine-tuning or probe
    `pre-training/fine-tuning`; `?` for one that is not known."""


class CommandProgress(NamedTuple):
    """A `bench run` that works on the store."""

    by: str
    """Its machine and process."""
    stages: int
    """The number of stages that it had to run at its start."""
    ended: int
    seconds_left: float
    """From the rates of running stages and the estimates of the others, at the present parallelism."""


class Status(NamedTuple):
    """Stages under way, the number of runs by outcome (`damaged`: records that cannot be read), and the commands that run."""

    under_way: list[StageUnderWay]
    outcomes: dict[str, int]
    commands: list[CommandProgress]


class _Ended(BaseModel):
    """The fields of a record that a count of outcomes reads."""

    outcome: Outcome


class _Probed(BaseModel):
    """What a title needs of a probe."""

    protocol: Protocol


class _Described(BaseModel):
    """The fields of a spec that a title reads."""

    kind: str
    method: str
    stage: str
    task: str | None = None
    label_ratio: LabelRatio | None = None
    probe: _Probed | None = None
    seed: int = 0
    parents: dict[str, str] = {}


def status(runs: Runs = "runs") -> Status:
    """Read the running stages of a folder from another process, and count its runs by outcome. Raises WrongUse."""
    store = open_runs(runs)
    store.check()
    root = store.root
    ended = (_outcome(root / kind / name) for kind in KINDS for name in _names(root / kind))
    outcomes = Counter(outcome for outcome in ended if outcome is not None)
    under_way = _with_jobs(stages_under_way(store), store)
    commands = [_progress(command, under_way) for command in commands_under_way(store)]
    return Status(under_way, dict(outcomes), commands)


def stages_under_way(store: Store) -> list[StageUnderWay]:
    """The stages that run or that were left, without their jobs."""
    partial = sorted((store.root / ".partial").glob("[!.]*"))
    return [_under_way(store, folder) for folder in partial if folder.is_dir()]


def _with_jobs(stages: list[StageUnderWay], store: Store) -> list[StageUnderWay]:
    """The stages with their jobs, and those whose job waits for a node."""
    jobs = jobs_of(store)
    known = [s if (job := jobs.get(s.key)) is None else _of_job(s, job) for s in stages]
    listed = {stage.key for stage in stages}
    waiting = [
        StageUnderWay(key, job.title, job.state, None, 0, 0, None, None, None, job=job.job, host=job.host)
        for key, job in jobs.items()
        if key not in listed
    ]
    return known + waiting


def _of_job(stage: StageUnderWay, job: JobState) -> StageUnderWay:
    state = job.state if stage.state == "interrupted" else stage.state
    return stage._replace(job=job.job, host=job.host, state=state)


def _progress(command: CommandUnderWay, under_way: list[StageUnderWay]) -> CommandProgress:
    running = {s.key: s.seconds_left for s in under_way if s.key in command.left and s.state != "interrupted"}
    known = {key: seconds for key, seconds in running.items() if seconds is not None}
    seconds = sum({**command.left, **known}.values()) / max(1, len(running))
    return CommandProgress(command.by, command.stages, command.stages - len(command.left), seconds)


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _under_way(store: Store, folder: Path) -> StageUnderWay:
    holder = store.held_by(folder.name)
    events = list(first_and_last(folder / "root/out" / EVENTS_FILE))
    starts = [e for e in events if isinstance(e, Start)]
    steps = [e for e in events if isinstance(e, Step)]
    seconds = [e.seconds for e in steps[-RATE_STEPS:]]
    rate = len(seconds) / sum(seconds) if sum(seconds) > 0 else None
    step, total = (steps[-1].step if steps else 0), (starts[-1].total_steps if starts else 0)
    if steps and steps[-1].done:
        total = round(step / steps[-1].done)
    silent = _seconds_since_change(folder / "root/out" / EVENTS_FILE) if holder else None
    spec = _described(folder / "root/in" / STAGE_FILE)
    return StageUnderWay(
        key=folder.name,
        stage="?" if spec is None else _title(spec),
        state=_state(silent, rate) if holder else "interrupted",
        by=holder,
        step=step,
        steps=total,
        steps_per_second=rate,
        seconds_left=(total - step) / rate if rate and holder else None,
        silent_seconds=silent,
        seeds="?" if spec is None else _seeds(spec, store),
    )


def _state(silent: float | None, steps_per_second: float | None) -> str:
    if steps_per_second is None:  # it is reading data, or compiling
        return "stalled" if (silent or 0) > STALLED_BEFORE_STEPS_SECONDS else "running"
    return "stalled" if (silent or 0) > max(STALLED_SECONDS, STALL_FACTOR / steps_per_second) else "running"


def _seconds_since_change(path: Path) -> float | None:
    try:
        return max(0.0, time.time() - os.lstat(path).st_mtime)
    except OSError:
        return None


def _described(path: Path) -> _Described | None:
    try:
        return _Described.model_validate_json(read_plain(path))
    except (OSError, ValidationError):
        return None


def _title(spec: _Described) -> str:
    if spec.kind == "pretrain" or spec.task is None:
        return f"{spec.method}/{spec.stage}"
    if spec.kind == "features":
        return features_title(spec.method, spec.task)
    protocol = FINETUNE if spec.probe is None else spec.probe.protocol
    return finetune_title(spec.method, spec.task, spec.label_ratio or LabelRatio(), protocol)


def _seeds(spec: _Described, store: Store) -> str:
    if spec.kind != "finetune":
        return str(spec.seed)
    before = [_described(store.folder(kind, key) / SPEC) for kind in PARENT_KINDS for key in spec.parents.values()]
    seeds = {str(parent.seed) for parent in before if parent is not None} or {"?"}
    return f"{'+'.join(sorted(seeds))}/{spec.seed}"


def _outcome(folder: Path) -> str | None:
    """The outcome in a run's record; None where there is no record."""
    try:
        return _Ended.model_validate_json(read_plain(folder / RECORD)).outcome.value
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):  # a link, a pipe or a folder in its place; not JSON; not an outcome
        return DAMAGED
