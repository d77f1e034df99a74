"""One stage, from its lock to its record: reuse, retry, and lookups only when the record can have changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE, End, EventWriter, Ledger, Start, Usage
from pretrain_bench.harness.contract.records import Measured, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Allocation, Execution, Executor, StageLaunch, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running import layout
from pretrain_bench.harness.running.capacity import Capacity, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.layout import lay_out, with_users_paths
from pretrain_bench.harness.running.scheduler import run_cells, run_stages
from pretrain_bench.harness.running.stage_runner import Cancelled, Retry, RunOptions, StageJob, StageRunner
from pretrain_bench.harness.store.retention import PRUNED
from pretrain_bench.harness.store.store import CODE, Store
from pretrain_bench.harness.store.withdrawal import withdraw
from tests.faults.in_process import SleepingInProcess
from tests.harness.running.sleeping import CAPACITY, Watched, run


def runner_of(runs: Path, executor: Executor, retry: Retry = "infra") -> StageRunner:
    return StageRunner(Store(runs), executor, Silent(), RunOptions(retry))


def job_of(planned: PlannedStage) -> StageJob:
    return StageJob(planned, planned.spec.key, demand(planned, CAPACITY), Allocation(Stop()))


def test_an_infrastructure_error_is_retried_once_and_recorded(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.PAUSE_SECONDS", 0.0)
    failures = [0]

    def once(spec: StageSpec) -> bool:
        failures[0] += 1
        return failures[0] == 1

    executor = Watched(once)
    reports = run(cells[:1], tmp_path, executor)
    first = reports[0].record
    assert first.outcome == "ok" and first.attempt == 2
    attempts = sorted((tmp_path / "pretrain" / first.key / "attempts").glob("*/record.json"))
    assert ["infra_error" in p.read_text() for p in attempts] == [True, False], "both attempts are kept"
    always = Watched(lambda _: True)
    with pytest.raises(EnvironmentCannot, match="the engine is gone"):
        run(cells[-1:], tmp_path / "other", always)
    assert len(always.started) == 2
    store, stage = Store(tmp_path / "other"), cells[-1].stages[0]
    last = store.last_attempt(stage.spec.key)
    assert last is not None and last.outcome == "infra_error"
    left_alone = run_cells(cells[-1:], StageRunner(store, always, Silent(), RunOptions("none")), CAPACITY)
    assert [r.record.outcome for r in left_alone] == ["infra_error"] and len(always.started) == 2


def test_a_record_is_looked_up_once_before_the_lock_and_once_after_it(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: Counter[str] = Counter()
    record_of = Store.record

    def counted(store: Store, kind: str, key: str) -> Record | None:
        lookups[key] += 1
        return record_of(store, kind, key)

    monkeypatch.setattr(Store, "record", counted)
    run(cells[:1], tmp_path, Watched())
    assert set(lookups.values()) == {2} and len(lookups) == len(cells[0].stages)
    lookups.clear()
    run(cells[:1], tmp_path, Watched())
    assert set(lookups.values()) == {1}, "a record that is reused at once needs no lock"


def test_a_stage_that_another_process_completed_meanwhile_is_reused(cells: list[PlannedCell], tmp_path: Path) -> None:
    stage, executor = cells[0].stages[0], Watched()
    runner = runner_of(tmp_path, executor)
    run_stages([stage], runner, CAPACITY)
    report = runner.run(job_of(stage))
    assert report.reused and report.record.outcome == "ok" and executor.started == [stage.spec.key]
    assert not runner.store.partial(stage.spec.key).exists()


def test_an_interrupted_attempt_that_is_not_retried_stays_in_the_store(
    cells: list[PlannedCell], tmp_path: Path
) -> None:
    stage, executor = cells[0].stages[0], Watched(lambda _: True)
    with pytest.raises(EnvironmentCannot):
        runner_of(tmp_path, executor, "none").run(job_of(stage))
    for _ in range(2):
        report = runner_of(tmp_path, executor, "none").run(job_of(stage))
        assert report.reused and report.record.outcome == "infra_error" and len(executor.started) == 1


@pytest.mark.parametrize("how", ["withdrawn", "pruned"])
def test_a_stage_whose_parent_was_removed_while_it_waited_names_it(
    how: str, cells: list[PlannedCell], tmp_path: Path
) -> None:
    child = next(s for c in cells for s in c.stages if s.spec.parents)
    parents = [s for c in cells for s in c.stages if s.spec.key in child.spec.parents.values()]
    executor = Watched()
    runner = runner_of(tmp_path, executor)
    run_cells([c for c in cells if child in c.stages], runner, CAPACITY)
    store = runner.store
    store_folder = store.folder(child.spec.kind, child.spec.key)
    store_folder.rename(tmp_path / "elsewhere")
    for parent in parents:
        if how == "withdrawn":
            withdraw(store, [parent.spec.key], "a test")
        else:
            (store.folder(parent.spec.kind, parent.spec.key) / PRUNED).write_text('{"backbone.pt": "bench clean"}')
    before = list(executor.started)
    with pytest.raises(
        WrongUse, match="`bench clean` has removed its stage .* give the same command again, and both are run"
    ):
        runner.run(job_of(child))
    assert executor.started == before and store.last_attempt(child.spec.key) is None


def test_a_stage_waits_for_a_cleaning_of_its_parent(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.CLEANING_SECONDS", 1.0)
    child = next(s for c in cells for s in c.stages if s.spec.parents)
    (parent,) = child.spec.parents.values()
    runner = runner_of(tmp_path, Watched())
    run_stages([s for c in cells for s in c.stages if s.spec.key == parent], runner, CAPACITY)
    with runner.store.lock(parent, lambda _: None), pytest.raises(WrongUse, match="is cleaning or repeating its stage"):
        runner.run(job_of(child))
    assert runner.run(job_of(child)).record.outcome == "ok"


def test_a_refusal_keeps_what_an_earlier_attempt_has_saved(cells: list[PlannedCell], tmp_path: Path) -> None:
    """The earlier attempt was killed, so it left no record; a fresh stage that is refused leaves nothing."""
    planned = next(s for c in cells for s in c.stages if s.data is not None and s.spec.kind == "pretrain")
    runner = runner_of(tmp_path, Refusing("refused"))
    partial = runner.store.partial(planned.spec.key)
    with pytest.raises(WrongUse, match="no labels"):
        runner.run(job_of(planned))
    assert not partial.exists()
    out = partial / "root/out"
    out.mkdir(parents=True)
    EventWriter(out / EVENTS_FILE).write(Start(total_steps=3))
    (out / "checkpoint.pt").write_bytes(b"state")
    with pytest.raises(WrongUse, match="no labels"):
        runner.run(job_of(planned))
    assert (out / "checkpoint.pt").read_bytes() == b"state"


class Refusing(SleepingInProcess):
    """A stage that refuses its input, or stops, with messages that contain its own paths."""

    def __init__(self, status: Literal["refused", "failed"]) -> None:
        self.status: Literal["refused", "failed"] = status

    def run(self, launch: StageLaunch) -> Execution:
        data = launch.spec.data
        place = f"data/{data.dataset}/labelled/x.npy" if data else "in/stage.json"
        message = f"{launch.root}/{place}: no labels, {launch.root}/out/x, /bench/{place}"
        EventWriter(launch.root / "out" / EVENTS_FILE).write(End(status=self.status, message=message))
        return Execution(2 if self.status == "refused" else 1, None, False, Measured())


def test_messages_name_the_users_data_and_not_the_folder_of_the_stage(cells: list[PlannedCell], tmp_path: Path) -> None:
    planned = next(s for c in cells for s in c.stages if s.data is not None and s.spec.kind == "pretrain")
    with pytest.raises(WrongUse) as caught:
        runner_of(tmp_path / "a", Refusing("refused")).run(job_of(planned))
    assert planned.data is not None
    file = f"{planned.data.folder}/labelled/x.npy"
    assert str(caught.value).endswith(f": {file}: no labels, out/x, {file}")
    report = runner_of(tmp_path / "b", Refusing("failed")).run(job_of(planned))
    assert report.record.outcome == "crashed" and ".partial" not in report.record.message


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_weights_that_change_while_a_stage_waits_are_named(
    change: str, cells: list[PlannedCell], tmp_path: Path
) -> None:
    weights = tmp_path / "resnet.pth"
    weights.write_bytes(b"one")
    stage = cells[0].stages[0]
    sha256 = hashlib.sha256(b"one").hexdigest()
    planned = stage._replace(spec=stage.spec.model_copy(update={"imagenet_weights_sha256": sha256}))
    lay_out(tmp_path / "root", planned, {}, weights)
    assert (tmp_path / "root/in/imagenet_weights").read_bytes() == b"one"
    weights.write_bytes(b"two") if change == "edited" else weights.unlink()
    runner = StageRunner(Store(tmp_path / "runs"), Watched(), Silent(), RunOptions(imagenet_weights=weights))
    why = "changed since this command started" if change == "edited" else "cannot be read: No such file"
    with pytest.raises(WrongUse, match=f"{weights}: {why}"):
        runner.run(job_of(planned))


def test_a_stage_gets_no_more_memory_than_this_process_has(cells: list[PlannedCell], tmp_path: Path) -> None:
    given: list[int | None] = []

    class Noted(Watched):
        def run(self, launch: StageLaunch) -> Execution:
            given.append(launch.caps.memory_mib)
            return super().run(launch)

    cap = cells[0].stages[0].caps.memory_mib
    assert cap is not None
    for number, memory_mib in enumerate((cap + 1, cap - 1)):
        run(cells[:1], tmp_path / str(number), Noted(), Capacity(4, memory_mib))
    assert set(given[: len(given) // 2]) == {cap} and set(given[len(given) // 2 :]) == {cap - 1}


def test_a_users_folder_may_have_the_name_of_one_of_ours(cells: list[PlannedCell]) -> None:
    planned = next(s for c in cells for s in c.stages if s.data is not None)
    assert planned.data is not None
    name = planned.data.dataset.name
    lies = planned._replace(data=planned.data._replace(folder=Path(f"/mnt/bench/data/{name}")))
    text = f"/r/root/data/{name}/a.npy: bad; /bench/data/{name}/b.npy; /r/root/parents/warmup/c; /r/root/out/d"
    named = with_users_paths(text, Path("/r/root"), lies, {"warm": Path("/runs/w")}, None)
    users = f"/mnt/bench/data/{name}"
    assert named == f"{users}/a.npy: bad; {users}/b.npy; parents/warmup/c; out/d"


class Signalled(SleepingInProcess):
    """A stage that ends early since someone else's signal reached it, the first `times` times."""

    def __init__(self, end: End, times: int) -> None:
        self.end, self.times, self.launches = end, times, list[StageLaunch]()

    def run(self, launch: StageLaunch) -> Execution:
        self.launches.append(launch)
        if len(self.launches) > self.times:
            return super().run(launch)
        events = EventWriter(launch.root / "out" / EVENTS_FILE)
        events.write(Start(total_steps=3))
        events.write(Usage(ledger=Ledger(optimizer_steps=1, wall_seconds=70.0)))
        events.write(self.end)
        return Execution(0, None, False, Measured())


class LostThenSignalled(Signalled):
    """The same, after the engine was lost once."""

    def run(self, launch: StageLaunch) -> Execution:
        if not self.launches:
            self.launches.append(launch)
            raise EnvironmentCannot("the engine is gone")
        return super().run(launch)


ASKED_TO_FINISH = End(status="ok", stopped="soft_limit")


def test_a_stage_that_others_stop_early_is_no_result(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.PAUSE_SECONDS", 0.0)
    stage = cells[0].stages[0]
    once = runner_of(tmp_path / "once", Signalled(ASKED_TO_FINISH, 1)).run(job_of(stage)).record
    assert once.outcome == "ok" and once.attempt == 2 and once.stopped is None, "it resumes by itself"
    always = runner_of(tmp_path / "always", Signalled(ASKED_TO_FINISH, 9)).run(job_of(stage)).record
    assert (always.outcome, always.attempt) == ("crashed", 2), (
        "a method that always reports it must not stop the command"
    )
    assert always.message.startswith("twice, a signal that `bench` had not sent ended the stage early")
    lost_once = runner_of(tmp_path / "lost", LostThenSignalled(ASKED_TO_FINISH, 9))
    with pytest.raises(EnvironmentCannot, match="a signal that `bench` had not sent"):
        lost_once.run(job_of(stage))
    never = runner_of(tmp_path / "never", Signalled(ASKED_TO_FINISH, 1), "none")
    with pytest.raises(
        EnvironmentCannot, match=r"a signal .* ended the stage early .*; the same command resumes the stage$"
    ):
        never.run(job_of(stage))
    last = never.store.last_attempt(stage.spec.key)
    assert last is not None and last.outcome == "infra_error" and last.ledger.optimizer_steps == 1
    assert never.store.record(stage.spec.kind, stage.spec.key) is None


def test_the_record_of_an_interrupted_attempt_says_what_it_used(cells: list[PlannedCell], tmp_path: Path) -> None:
    class Lost(SleepingInProcess):
        def run(self, launch: StageLaunch) -> Execution:
            EventWriter(launch.root / "out" / EVENTS_FILE).write(Usage(ledger=Ledger(optimizer_steps=7)))
            raise EnvironmentCannot("the engine is gone")

    stage, runner = cells[0].stages[0], runner_of(tmp_path, Lost(), "none")
    with pytest.raises(EnvironmentCannot, match="the engine is gone"):
        runner.run(job_of(stage))
    last = runner.store.last_attempt(stage.spec.key)
    assert last is not None and last.outcome == "infra_error" and last.ledger.optimizer_steps == 7


def test_a_resumed_stage_has_the_wall_time_that_is_left(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.PAUSE_SECONDS", 0.0)
    for limit, left in ((100.0, 30.0), (90.0, 30.0), (200.0, 130.0), (10.0, 10.0), (None, None)):
        stage = cells[0].stages[0]
        stage = stage._replace(caps=stage.caps.model_copy(update={"wall_seconds": limit}))
        executor = Signalled(ASKED_TO_FINISH, 1)
        runner_of(tmp_path / str(limit), executor).run(job_of(stage))
        assert [launch.caps.wall_seconds for launch in executor.launches] == [limit, left]


def test_code_that_was_edited_since_the_command_started_is_not_run(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, executor = cells[0].stages[0], Watched()
    edited = {**layout.code_hashes(stage.spec.kind, stage.spec.code_of, stage.spec.part), "a.module": "0" * 64}
    runner = runner_of(tmp_path, executor)
    with monkeypatch.context() as patched:
        patched.setattr(layout, "code_hashes", lambda *_: edited)
        with pytest.raises(EnvironmentCannot, match="has different code from the command that planned the stage"):
            runner.run(job_of(stage))
    assert not executor.started and runner.run(job_of(stage)).record.outcome == "ok"
    code = json.loads((runner.store.folder(stage.spec.kind, stage.spec.key) / CODE).read_text())
    assert layout.digest_of_hashes(code) == stage.spec.code_sha256


def test_waiting_for_another_process_ends_when_asked_to_stop(cells: list[PlannedCell], tmp_path: Path) -> None:
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    executor = Watched()
    runner = StageRunner(Store(tmp_path), executor, Saying(), RunOptions())
    job = job_of(cells[0].stages[0])
    with runner.store.lock(job.key, lambda _: None), ThreadPoolExecutor() as threads:
        waiting = threads.submit(runner.run, job)
        while not said:
            time.sleep(0.01)
        job.allocation.stop.ask()
        with pytest.raises(Cancelled, match="stopped waiting for .*, which runs this stage"):
            waiting.result(timeout=60)
    assert len(said) == 1 and not executor.started
