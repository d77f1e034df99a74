"""Curves of the stages that run in a store, from the events that they write."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from pretrain_bench.api.status import StageUnderWay, stages_under_way
from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.harness.contract.events import EVENTS_FILE, Eval, Start, Step
from pretrain_bench.harness.contract.stage import STAGE_FILE, StageSpec
from pretrain_bench.harness.executors.base import EventTail
from pretrain_bench.reports.analysis.curves import Curve, RunningStage
from pretrain_bench.reports.page.running import running_json


class RunningStages:
    """The running stages of a folder of runs. Each reading continues where the last one stopped in their files of events."""

    def __init__(self, runs: Runs) -> None:
        self._store = open_runs(runs)
        self._followed: dict[str, _Followed] = {}
        self._reading = threading.Lock()  # a server answers each request in a thread of its own

    def read(self) -> list[RunningStage]:
        """Every stage that a process runs now, with its key where two have one title; without those whose spec this version
        cannot read."""
        with self._reading:
            running = [stage for stage in stages_under_way(self._store) if stage.by is not None]
            known = self._followed
            self._followed = {s.key: known.get(s.key) or _Followed(self._store.partial(s.key)) for s in running}
            curves = [(stage.key, self._followed[stage.key].read(stage)) for stage in running]
        read = [(key, stage) for key, stage in curves if stage is not None]
        times = Counter(stage.title for _, stage in read)
        return [
            stage._replace(title=f"{stage.title}, {key[:8]}") if times[stage.title] > 1 else stage
            for key, stage in read
        ]

    def as_json(self) -> bytes:
        """The stages as a live page shows them."""
        return json.dumps(running_json(self.read()), allow_nan=False).encode()


class _Followed:
    """The events of one stage so far: loss, and score on the test split, by step."""

    def __init__(self, folder: Path) -> None:
        self._spec_file = folder / "root/in" / STAGE_FILE
        self._tail = EventTail(folder / "root/out" / EVENTS_FILE)
        self._spec: StageSpec | None = None
        self._losses: dict[int, float] = {}
        self._scores: dict[int, float] = {}

    def read(self, stage: StageUnderWay) -> RunningStage | None:
        """The stage with its curves; None until its spec can be read."""
        try:
            self._spec = self._spec or StageSpec.model_validate_json(read_plain(self._spec_file))
        except (OSError, ValidationError):
            return None
        while events := self._tail.new_events():
            for event in events:
                self._take(event, self._spec.headline_metric)
        losses, scores = (sorted(points.items()) for points in (self._losses, self._scores))
        return RunningStage(
            title=f"{stage.stage}, seed {stage.seeds}",
            method=self._spec.method,
            kind=self._spec.kind,
            state=stage.state,
            step=stage.step,
            steps=stage.steps,
            losses=([step for step, _ in losses], [loss for _, loss in losses]),
            metric=self._spec.headline_metric,
            scores=Curve(self._spec.method, stage.key, 0, [step for step, _ in scores], [score for _, score in scores]),
        )

    def _take(self, event: object, metric: str) -> None:
        if isinstance(event, Start):  # what an earlier attempt did after its last checkpoint is done again
            self._losses, self._scores = (
                {step: value for step, value in points.items() if step <= event.resumed_from}
                for points in (self._losses, self._scores)
            )
        elif isinstance(event, Step):
            self._losses[event.step] = event.loss
        elif isinstance(event, Eval) and event.split == "test" and (score := event.metrics.get(metric)) is not None:
            self._scores[event.step] = score
