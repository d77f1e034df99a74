"""Slurm with a simulated Slurm in this process: files written before and after sbatch, recovery by a restarted driver,
and detection of the end of a job."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.api.status import status
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.clusters import jobs, slurm
from pretrain_bench.harness.clusters.base import Ended, Interrupted, ReadyStage
from pretrain_bench.harness.clusters.slurm_options import SlurmOptions
from pretrain_bench.harness.clusters.submissions import INTENT, Intent, Submission, submissions
from pretrain_bench.harness.clusters.ticket import job_of
from pretrain_bench.harness.clusters.worker import run_files
from pretrain_bench.harness.executors.base import Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.scheduler import stages_of
from pretrain_bench.harness.running.stage_runner import Cancelled, RunOptions, StageReport
from pretrain_bench.harness.store.store import Store
from tests.harness.clusters.fake import SLEEPING, run_on


class SlurmHere:
    """Runs jobs in threads, unless they are held; jobs in `loses` end without a note."""

    def __init__(self) -> None:
        self.number = 10
        self.listed: dict[str, tuple[str, str]] = {}
        self.sizes: list[int] = []
        self.calls: dict[str, functools.partial[int]] = {}
        self.threads: list[threading.Thread] = []
        self.hold = self.down = False
        self.loses: set[str] = set()
        self.asked: list[tuple[str, ...]] = []

    def submit_calls(
        self, calls: Sequence[functools.partial[int]], submission: Submission, parameters: Any, values: Any
    ) -> str:
        assert (submission.folder / INTENT).is_file(), "the intent comes first"
        self.number += 1
        self.sizes.append(sum(len(call.args[0]) for call in calls))
        for index, call in enumerate(calls):
            job = f"{self.number}_{index}" if len(calls) > 1 else str(self.number)
            self.calls[job] = call
            self.listed[job] = ("PENDING", "")
            if not self.hold:
                self.start(job)
        return str(self.number)

    def start(self, job: str) -> None:
        self.listed[job] = ("RUNNING", "n1")
        thread = threading.Thread(target=self._run, args=(job,))
        self.threads.append(thread)
        thread.start()

    def _run(self, job: str) -> None:
        if job not in self.loses:
            run_files(self.calls[job].args[0], Stop())
        del self.listed[job]

    def squeue(self, *arguments: str) -> dict[str, tuple[str, str]] | None:
        self.asked.append(arguments)
        return None if self.down else dict(self.listed)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmHere]:
    here = SlurmHere()
    monkeypatch.setattr(slurm, "submit_calls", here.submit_calls)
    monkeypatch.setattr(slurm, "squeue", here.squeue)
    monkeypatch.setattr(slurm, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.01)
    yield here
    for thread in here.threads:
        thread.join()


def place_on(store: Store, options: dict[str, str] | None = None, limit: int | None = None) -> slurm.Slurm:
    return slurm.Slurm(store, job_of(store, SLEEPING, RunOptions()), SlurmOptions(options or {}), limit)


def run(place: slurm.Slurm, cells: list[PlannedCell], seconds: float = 1.0) -> list[StageReport]:
    return run_on(place, place.store, cells, seconds={s.spec.key: seconds for s in stages_of(cells)})


def kept(store: Store) -> list[Submission]:
    return list(submissions(store))


def test_stages_of_one_shape_are_packed_and_nothing_is_left(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    store = Store(tmp_path)
    reports = run(place_on(store), cells)
    assert {r.record.outcome for r in reports} == {"ok"} and len(reports) == 10
    assert cluster.sizes[0] == 2 and len(cluster.sizes) < 10, "both pre-trainings share the first job"
    assert not kept(store) and sum(cluster.sizes) == 10
    assert all(r.record.attempt == 1 for r in reports)


def test_each_has_its_own_job_of_an_array_without_packing(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    cluster.hold = True
    place = place_on(Store(tmp_path), {"pack": "0"})
    ready = [ReadyStage(s, s.spec.key, place.demand(s)) for s in (cells[0].stages[0], cells[-1].stages[0])]
    place.submit(ready)
    assert sorted(cluster.listed) == ["11_0", "11_1"] and [s.number for s in kept(place.store)] == ["11"]
    assert {state.job for state in place.states().values()} == {"slurm:11_0", "slurm:11_1"}


def test_more_is_handed_over_once_a_quarter_of_the_limit_is_free(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    cluster.hold = True
    place = place_on(Store(tmp_path), limit=4)
    stages = [ReadyStage(s, s.spec.key, place.demand(s)) for s in {s.spec.key: s for s in stages_of(cells)}.values()]
    place.submit(stages[:4])
    assert not place.has_room(stages[4].demand)
    place._of.pop(stages[0].key)
    assert place.has_room(stages[4].demand) and len(place._of) == 3
    place.submit(stages[4:5])
    assert not place.has_room(stages[5].demand)


def test_a_driver_that_starts_again_follows_what_it_had_submitted(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    cluster.hold = True
    killed = place_on(Store(tmp_path))
    stages = {s.spec.key: s for s in stages_of(cells) if not s.spec.parents}
    killed.submit([ReadyStage(s, key, killed.demand(s), seconds=1.0) for key, s in stages.items()])
    cluster.hold = False
    again = place_on(Store(tmp_path))
    threading.Timer(0.1, cluster.start, ("11",)).start()
    assert {r.record.outcome for r in run(again, cells)} == {"ok"}
    assert sum(cluster.sizes) == 10, "nothing was submitted twice"
    run(place_on(Store(tmp_path)), cells)
    assert sum(cluster.sizes) == 10 and not kept(again.store)


def submitted_by_a_killed_driver(cells: list[PlannedCell], store: Store, cluster: SlurmHere) -> list[ReadyStage]:
    cluster.hold = True
    killed = place_on(store)
    stages = {s.spec.key: s for s in stages_of(cells) if not s.spec.parents}
    ready = [ReadyStage(s, key, killed.demand(s), seconds=1.0) for key, s in stages.items()]
    killed.submit(ready)
    return ready


def test_a_driver_that_starts_while_squeue_is_down_submits_and_removes_nothing(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    submitted = submitted_by_a_killed_driver(cells, store, cluster)
    cluster.down = True
    with pytest.raises(EnvironmentCannot, match="squeue does not say which of them still run; try again"):
        run(place_on(store), cells)
    assert sum(cluster.sizes) == len(submitted) and len(kept(store)) == 1
    cluster.down = False
    assert slurm.owners(kept(store)) == {os.getuid()}
    monkeypatch.setattr(slurm, "owners", lambda known: {70_000})
    assert list(place_on(store).attach(submitted)) == [stage.key for stage in submitted]
    assert cluster.asked[-1] == ("--user", f"{os.getuid()},70000"), "a colleague's jobs are looked up too"


def test_ctrl_c_leaves_the_jobs_of_an_earlier_driver_and_names_them(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    submitted_by_a_killed_driver(cells, store, cluster)
    again = place_on(store)

    def interrupted(seconds: float) -> list[Ended]:
        raise KeyboardInterrupt

    monkeypatch.setattr(again, "ended", interrupted)
    with pytest.raises(
        Cancelled, match=r"rerun the same command to resume\. Stages that an earlier command submitted continue \(11\)"
    ):
        run(again, cells)
    assert "11" in cluster.listed and len(kept(store)) == 1


@pytest.mark.parametrize("reached", [True, False])
def test_a_driver_killed_between_intent_and_number_neither_loses_nor_doubles(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    cluster.hold = True
    submit = cluster.submit_calls

    def killed(*arguments: Any) -> str:
        if reached:
            submit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "submit_calls", killed)
    stage = cells[0].stages[0]
    place = place_on(Store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        place.submit([ReadyStage(stage, stage.spec.key, place.demand(stage))])
    assert [s.number for s in kept(place.store)] == [None]
    again = place_on(Store(tmp_path))
    ready = [ReadyStage(stage, stage.spec.key, again.demand(stage))]
    if reached:
        assert list(again.attach(ready)) == [stage.spec.key] and [s.number for s in kept(again.store)] == ["11"]
        return
    assert list(again.attach(ready)) == [stage.spec.key], "sbatch may still be on its way"
    monkeypatch.setattr(slurm, "SETTLE_SECONDS", 0.0)
    assert list(place_on(Store(tmp_path)).attach(ready)) == [] and not kept(again.store)


def test_a_job_without_an_end_note_is_lost_only_if_squeue_confirms_it(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    cluster.hold = cluster.down = True
    place = place_on(Store(tmp_path))
    stage = cells[0].stages[0]
    place.submit([ReadyStage(stage, stage.spec.key, place.demand(stage))])
    cluster.listed.clear()
    assert not [end for _ in range(5) for end in place.ended(0.02)], "the controller does not answer: nothing is known"
    cluster.down = False
    ends = [end for _ in range(3) for end in place.ended(0.02)]
    assert [end.key for end in ends] == [stage.spec.key] and isinstance(ends[0].problem, Interrupted)
    assert "job 11 ended without a report" in str(ends[0].problem)


def test_a_lost_job_runs_again_and_its_stage_is_recorded_once(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere
) -> None:
    cluster.loses = {"11"}
    reports = run(place_on(Store(tmp_path)), cells)
    assert {r.record.outcome for r in reports} == {"ok"} and sum(cluster.sizes) == 12
    assert all(r.record.attempt == 1 for r in reports)


def test_a_refusal_of_sbatch_leaves_nothing_behind(
    cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> str:
        raise WrongUse("--slurm: sbatch refused the job: Invalid partition name specified")

    monkeypatch.setattr(slurm, "submit_calls", refuse)
    place = place_on(Store(tmp_path))
    with pytest.raises(BenchError, match="Invalid partition name"):
        run(place, cells)
    assert not kept(place.store) and not list(Store(tmp_path).records())


def test_status_names_jobs_states_and_hosts(cells: list[PlannedCell], tmp_path: Path, cluster: SlurmHere) -> None:
    cluster.hold = True
    place = place_on(Store(tmp_path))
    stage = cells[0].stages[0]
    place.submit([ReadyStage(stage, stage.spec.key, place.demand(stage))])
    for state, host in (("PENDING", ""), ("RUNNING", "n2")):
        cluster.listed["11"] = (state, host)
        rows = status(tmp_path).under_way
        assert [(r.key, r.job, r.state, r.host, r.stage) for r in rows] == [
            (stage.spec.key, "slurm:11", state.lower(), host, stage.title)
        ]
    cluster.down = True
    assert not status(tmp_path).under_way, "without squeue nothing is known of jobs"


def test_job_states_follow_squeue(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, tuple[str, str]] | None] = [{"17_3": ("RUNNING", "n1")}, {}, None]
    monkeypatch.setattr(jobs, "squeue", lambda *_: answers.pop(0))
    jobs._slurm_job_has_ended.cache_clear()
    words = [jobs.has_ended("slurm:17_3")]
    for _ in range(2):
        jobs._slurm_job_has_ended.cache_clear()
        words.append(jobs.has_ended("slurm:17_3"))
    assert words == [False, True, False] and not jobs.has_ended("moon:1")
    jobs._slurm_job_has_ended.cache_clear()


def test_a_stage_whose_note_was_read_is_not_lost_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its job is no longer listed when its note is read; after a restart of the controller, both events used to be reported."""
    place = slurm.Slurm(Store(tmp_path), None, SlurmOptions())  # type: ignore[arg-type]
    place._of, place._missing = {"k": None}, {"k": 1}  # type: ignore[dict-item]
    monkeypatch.setattr(place, "_noted", lambda: iter([Ended("k")]))
    monkeypatch.setattr(place, "_ask", lambda: True)
    monkeypatch.setattr(place, "_may_run", lambda submission, key: False)
    assert place.ended(0) == [Ended("k")] and not place._of


def test_a_submission_that_another_driver_has_removed_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two drivers that follow it, the first one to read all end notes removes the folder."""
    place = slurm.Slurm(Store(tmp_path), None, SlurmOptions())  # type: ignore[arg-type]
    intent = Intent(cluster="slurm", name="bench-x", jobs=(("k", "other"),), began=0.0)
    place._of = {"k": Submission(tmp_path / "removed", intent, "17")}
    monkeypatch.setattr(place, "_ask", lambda: False)
    assert place.ended(0) == [Ended("k")] and not place._of
