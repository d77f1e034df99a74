"""The scheduler on a cluster: the store is the only source of truth, and lost jobs are resubmitted up to a limit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.clusters.base import Interrupted
from pretrain_bench.harness.clusters.ticket import Ticket
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.scheduler import chain_seconds, stages_of
from pretrain_bench.harness.store.store import Store
from tests.faults.injection import check_whole
from tests.harness.clusters.fake import FakeCluster, run_on


def test_records_come_from_the_store_and_no_more_jobs_than_the_limit(cells: list[PlannedCell], tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = FakeCluster(store, limit=2)
    reports = run_on(place, store, cells)
    keys = {s.spec.key for c in cells for s in c.stages}
    assert sorted(place.submitted) == sorted(keys) and place.most == 2 and place.closed
    assert {r.record.outcome for r in reports} == {"ok"} and not any(r.reused for r in reports)
    again = FakeCluster(store)
    assert all(r.reused for r in run_on(again, store, cells)) and not again.submitted


def test_the_longest_chain_of_estimates_comes_first(cells: list[PlannedCell], tmp_path: Path) -> None:
    stages = {s.spec.key: s for s in stages_of(cells)}
    first = [key for key, s in stages.items() if not s.spec.parents]
    last = [key for key, s in stages.items() if first[-1] in s.spec.parents.values()]
    seconds = {**dict.fromkeys(stages, 1.0), last[0]: 100.0}
    assert chain_seconds(stages, seconds)[first[-1]] == 101.0 and chain_seconds(stages, seconds)[first[0]] == 2.0
    place = FakeCluster(Store(tmp_path), limit=1)
    run_on(place, Store(tmp_path), cells, seconds=seconds)
    assert place.submitted[:2] == [first[-1], last[0]]


def test_a_lost_job_is_handed_over_again_but_not_for_ever(cells: list[PlannedCell], tmp_path: Path) -> None:
    store, tries = Store(tmp_path), Counter[str]()
    victim, hopeless = cells[0].stages[-1].spec.key, cells[-1].stages[-1].spec.key

    def lose(key: str) -> bool:
        tries[key] += 1
        return key == hopeless or (key == victim and tries[key] < 3)

    place = FakeCluster(store)
    place.lose = lose
    with pytest.raises(Interrupted, match="node lost"):
        run_on(place, store, cells)
    done = {r.key for r in store.records()}
    assert tries[victim] == 3 and tries[hopeless] == 3
    assert {s.spec.key for s in stages_of(cells)} - done == {hopeless}, "everything else was run"


def test_the_record_of_a_pruned_run_does_not_stand_for_its_lost_rerun(cells: list[PlannedCell], tmp_path: Path) -> None:
    store, tries = Store(tmp_path), Counter[str]()
    run_on(FakeCluster(store), store, cells)
    pb.clean(tmp_path, keep="none")
    child = next(s for s in stages_of(cells) if s.spec.parents)
    (parent,) = child.spec.parents.values()
    (tmp_path / "finetune" / child.spec.key).rename(tmp_path / "away")

    def lose(key: str) -> bool:
        tries[key] += 1
        return key == parent and tries[key] == 1

    place = FakeCluster(store)
    place.lose = lose
    reports = {r.planned.spec.key: r for r in run_on(place, store, cells)}
    assert place.submitted == [parent, parent, child.spec.key]
    assert reports[parent].record.attempt == 2 and reports[child.spec.key].record.outcome == "ok"


@pytest.mark.parametrize("fault", ["code", "version", "data", "other data", "store"])
def test_a_node_that_differs_is_named(cells: list[PlannedCell], tmp_path: Path, fault: str) -> None:
    expected = {
        "code": "has different code from the command that planned",
        "version": "has torch .*, and the command that submitted the stage has 0.1",
        "data": "prepared data of 's3dis' are not on node",
        "other data": "has different data of 's3dis'",
        "store": "does not see the folder of runs",
    }

    def edit(ticket: Ticket) -> Ticket:
        stage, job = ticket.stage, ticket.job
        if fault == "code":
            spec = stage.spec.model_copy(update={"code_sha256": "0" * 64})
            return ticket.model_copy(update={"stage": stage._replace(spec=spec)})
        if fault == "version":
            job = job.model_copy(update={"versions": {**job.versions, "torch": "0.1"}})
        if fault == "store":
            job = job.model_copy(update={"runs": tmp_path / "elsewhere"})
        if fault == "data" and ticket.data is not None:
            return ticket.model_copy(update={"data": tmp_path / "not-mounted"})
        if fault == "other data" and stage.spec.data is not None:
            data = stage.spec.data.model_copy(update={"manifest_sha256": "0" * 64})
            return ticket.model_copy(
                update={"stage": stage._replace(spec=stage.spec.model_copy(update={"data": data}))}
            )
        return ticket.model_copy(update={"job": job})

    place = FakeCluster(Store(tmp_path))
    place.edit = edit
    with pytest.raises(EnvironmentCannot, match=expected[fault]):
        run_on(place, Store(tmp_path), cells[:1])
    assert place.closed


def test_what_workers_left_that_were_killed_after_publishing_is_removed(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their records are in the store, so that nothing locks these stages again."""
    store, drop = Store(tmp_path), Store.drop_partial
    killed, removing = cells[0].stages[-1].spec.key, cells[-1].stages[-1].spec.key
    tries = Counter[str]()

    def killed_at_first(store: Store, key: str) -> None:
        tries[key] += 1
        if tries[key] == 1 and key == removing:
            store.partial(key).rename(tmp_path / f".partial/.gone-{key}-1")
        if tries[key] == 1 and key in (killed, removing):
            raise OSError("killed")
        drop(store, key)

    monkeypatch.setattr(Store, "drop_partial", killed_at_first)
    run_on(FakeCluster(store), store, cells)
    assert tries[killed] == 2 and tries[removing] == 1
    check_whole(tmp_path, len({s.spec.key for s in stages_of(cells)}))


def test_state_of_other_attempts_and_of_other_processes_is_kept(cells: list[PlannedCell], tmp_path: Path) -> None:
    store = Store(tmp_path)
    run_on(FakeCluster(store), store, cells)
    keys = list(dict.fromkeys(stage.spec.key for stage in stages_of(cells)))[:4]
    resumable, to_publish, used, locked = (store.partial(key) for key in keys)
    for folder in (resumable, to_publish, used, locked):
        folder.mkdir()
        (folder / "lock").touch()
    (resumable / "root/out").mkdir(parents=True)
    (resumable / "root/out" / EVENTS_FILE).write_text("of another attempt")
    (to_publish / "complete-pretrain").mkdir()
    with store.lock(used.name, print):
        run_on(FakeCluster(store), store, cells)
        assert resumable.is_dir() and to_publish.is_dir() and used.is_dir() and not locked.exists()
