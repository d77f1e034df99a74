"""Plans: what is done, stale and why, failed, n/a or to do; and estimates."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pretrain_bench.api.display import duration
from pretrain_bench.harness.planning import code_digest as keys
from pretrain_bench.harness.planning.plan import State, states
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench
from tests.faults.in_process import SleepingInProcess
from tests.faults.suite import matrix, planned


@pytest.fixture(scope="module")
def done(s3dis_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[PlannedCell], Path]:
    """A store in which all of a small suite has run."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    monkeypatch.setenv("BENCH_TEST_SLEEP", "0.1")
    cells = planned(str(s3dis_root), seeds=1)
    runs = tmp_path_factory.mktemp("plan") / "runs"
    runner = StageRunner(Store(runs), SleepingInProcess(), Silent(), RunOptions())
    run_cells(cells, runner, Capacity(4, 1 << 20))
    monkeypatch.undo()
    return cells, runs


def test_done_and_to_do(done: tuple[list[PlannedCell], Path], s3dis_root: Path) -> None:
    cells, runs = done
    found = states(cells, Store(runs), 2)
    assert len(found) == 10 and {s.state for s in found} == {State.done}
    more = states(planned(str(s3dis_root), seeds=2), Store(runs), 2)
    fresh = [s for s in more if s.state == State.to_do]
    assert len(more) == 20 and len(fresh) == 10
    assert all(s.estimate is not None and s.estimate.source == "earlier runs" for s in fresh)
    empty = states(cells, Store(runs / "nothing"), 2)
    assert {s.state for s in empty} == {State.to_do}
    assert {s.estimate.source for s in empty if s.estimate} == {"rough"}
    assert all(s.estimate and s.estimate.seconds >= 0 and s.estimate.bytes > 0 for s in empty)


def test_another_setting_makes_a_stage_stale_and_the_plan_says_which(
    done: tuple[list[PlannedCell], Path], s3dis_root: Path
) -> None:
    _, runs = done
    plan = matrix(str(s3dis_root), 1)
    task = plan.profile.tasks["s3dis-sem"]
    recipe = task.model_copy(update={"scale": (0.8, 1.2)})
    other = plan._replace(
        profile=plan.profile.model_copy(update={"tasks": {**plan.profile.tasks, "s3dis-sem": recipe}})
    )
    cells, _ = other.plan_prepared()
    found = states(cells, Store(runs), 2)
    stale = [s for s in found if s.state == State.stale]
    assert len(stale) == 8 and all(s.planned.spec.kind == "finetune" for s in stale)
    assert {s.reason for s in stale} == {"recipe.scale [0.9, 1.1] -> [0.8, 1.2]"}
    threads, _ = plan._replace(machine=plan.machine._replace(threads=2)).plan_prepared()
    reasons = {s.reason for s in states(threads, Store(runs), 2)}
    assert reasons == {"threads 1 -> 2", "an earlier stage is stale or new; threads 1 -> 2"}


def test_changed_code_is_named(
    done: tuple[list[PlannedCell], Path], s3dis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runs = done
    before = keys.code_hashes("pretrain", "supervised", "semantic")
    changed = {**before, "pretrain_bench.methods.finetune.steps": "0" * 64}
    monkeypatch.setattr("pretrain_bench.harness.planning.plan.code_hashes", lambda *_: changed)
    monkeypatch.setattr("pretrain_bench.harness.planning.stage_specs.code_sha256", lambda *_: "1" * 64)
    cells, _ = matrix(str(s3dis_root), 1).plan_prepared()
    reasons = [s.reason for s in states(cells, Store(runs), 2) if s.planned.spec.method == "supervised"]
    assert reasons[0] == "code of pretrain_bench.methods.finetune.steps changed"


def test_failed_and_damaged(done: tuple[list[PlannedCell], Path], tmp_path: Path) -> None:
    cells, runs = done
    shutil.copytree(runs, tmp_path / "runs")
    first, second = cells[0].stages[-1].spec.key, cells[1].stages[-1].spec.key
    path = tmp_path / "runs/finetune" / first / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"outcome": "crashed", "message": "by hand"}))
    (tmp_path / "runs/finetune" / second / "record.json").write_text('{"half')
    found = {s.key: s for s in states(cells, Store(tmp_path / "runs"), 2)}
    assert found[first].state == State.failed and found[first].reason == "crashed: by hand"
    assert found[second].state == State.to_do


def test_not_applicable(s3dis_root: Path, cache: Path) -> None:
    plan = matrix(str(s3dis_root), 1)
    same = plan._replace(
        suite=plan.suite.model_copy(update={"pretrain_datasets": ("s3dis",)}), names={"s3dis": "s3dis"}
    )
    cells, _ = same.plan_prepared()
    reasons = {c.cell.method: c.reason for c in cells if not c.stages}
    assert set(reasons) == {"supervised"} and "which task 's3dis-sem' fine-tunes on" in reasons["supervised"]


def test_cells_whose_data_are_not_prepared_are_listed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    found = json.loads(bench("plan", "table1", "pretrain_seed=0", "finetune_seed=0", "--json").stdout)
    assert found["stages"] == [] and found["cells"] == 6 * 7
    assert [c["cell"]["task"] for c in found["not_applicable"]] == ["scannet-sem", "scannet-inst", "scannet-det"]
    assert {c["cell"]["method"] for c in found["not_applicable"]} == {"supervised"}
    assert len(found["waiting_for_data"]) == 6 * 7 - 3
    needs = {(w["cell"]["method"], w["cell"]["task"]): w["datasets"] for w in found["waiting_for_data"]}
    assert needs["ours", "kitti-sem"] == ["synth-kitti", "synth-scannet"]
    assert needs["scratch", "kitti-sem"] == ["synth-kitti"]
    text = bench("plan", "smoke").stdout
    assert re.search(r"-    ours -> s3dis-sem at 100% +0/0 +waiting  -     for data: synth-s3dis, synth-scannet", text)
    assert not list(tmp_path.glob("empty/*/*")), "nothing was prepared"


@pytest.mark.parametrize(("seconds", "text"), [(119, "119 s"), (150, "2 min"), (7200, "2.0 h"), (4e6, "1,111.1 h")])
def test_times_have_the_unit_that_a_person_would_say(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command(done: tuple[list[PlannedCell], Path], bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    _, runs = done
    suite = matrix(str(s3dis_root), 1).suite
    (tmp_path / "sleep.yaml").write_text(json.dumps(suite.model_dump(mode="json")))
    here = ("sleep.yaml", "--data", f"s3dis={s3dis_root}", "--threads", "1", "--runs", str(runs), "--device", "cpu")
    text = bench("plan", *here).stdout
    assert "8 cells, 10 stages" in text and "10 done" in text and "data: s3dis" in text and "research only" in text
    assert all(len(line) <= 100 for line in text.splitlines()[2:])
    less = json.loads(bench("plan", *here, "--only", "method=scratch", "label_ratio=50", "--json").stdout)
    assert {s["cell"]["pretrain_seed"] for s in less["stages"] if s["cell"]} == {0}
    fresh = bench("plan", *here[:-4], "--runs", "none", "--device", "cpu").stdout
    assert re.search(r"scratch -> s3dis-sem at 50% +0/0 +to do", fresh)
    assert re.search(r"about \d+ (s|min) one after the other and \d\.\d\d GB", fresh), "minutes are no 0.0 h"
    assert less["cells"] == 2 and [s["state"] for s in less["stages"]] == ["done"] * 3
    assert "no method of suite" in bench("plan", *here, "--only", "method=ours", code=2).stderr
    suites = bench("suites").stdout.splitlines()
    assert "smoke: 12 cells, budget smoke" in suites and all(len(line) <= 100 for line in suites)
    assert "There are: figure3" in bench("plan", "nonsense", code=2).stderr
