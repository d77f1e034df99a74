"""Environment and termination of a stage's process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.specs.probes import LinearProbe
from pretrain_bench.benchmarks.support.locks import host
from pretrain_bench.harness.contract.events import EventWriter, Start, Step
from pretrain_bench.harness.executors.base import Allocation, StageLaunch, StageLife, Stop, library_variables
from pretrain_bench.harness.executors.local import LocalExecutor, stage_environment
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.account import StageAccount
from pretrain_bench.harness.running.progress_note import NotedStage, noted
from pretrain_bench.harness.running.verdict import Evidence, judge
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench


def test_a_stage_finds_the_packages_and_gpus_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"modules{os.pathsep}{os.pathsep}/opt/torch")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    for name in ("PYTHONUSERBASE", "PYTHONHOME", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "TMPDIR"):
        monkeypatch.setenv(name, f"/a/{name}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = stage_environment(("GPU-a", "GPU-b"))
    assert found["PYTHONPATH"].split(os.pathsep)[:2] == [str(tmp_path / "modules"), "/opt/torch"]
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert {v for v in found.values() if v.startswith("/a/")} == {
        f"/a/{n}" for n in ("PYTHONUSERBASE", "PYTHONHOME", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "TMPDIR")
    }
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b" and "secret" not in found.values()
    assert stage_environment()["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="variables of glibc")
def test_a_stage_reuses_freed_memory_instead_of_asking_the_system_for_new_pages() -> None:
    code = (
        "import numpy, resource\n"
        "for _ in range(50): [numpy.ones(2_000_000) for _ in range(5)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )

    def page_faults(variables: dict[str, str]) -> int:
        run = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, check=True)
        return int(run.stdout)

    assert page_faults(library_variables(1)) < page_faults({}) / 2


@pytest.mark.slow
def test_doctor_looks_for_torch_where_a_stage_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = next(d for d in pb.doctor(tmp_path / "runs") if d.what == "torch")
    assert torch.state == "ok" and "threads" in torch.detail
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = {d.what: d for d in pb.doctor(tmp_path / "runs")}
    assert broken["torch"].state == "broken" and broken["GPU"].state == "missing"
    assert "a stage cannot start: ImportError: libcudart.so.12: cannot open" in broken["torch"].detail


def test_nothing_runs_on_when_following_a_stage_fails(cells: list[PlannedCell], tmp_path: Path) -> None:
    """For example, a progress bar raises."""
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[3], 'out/events.jsonl').write_text(%r); time.sleep(600)"
    start = '{"event": "start", "total_steps": 3}\n'
    (tmp_path / "root/out").mkdir(parents=True)
    stage = cells[0].stages[0]
    seen: list[object] = []

    def broken(event: object) -> None:
        seen.append(event)
        raise ZeroDivisionError

    launch = StageLaunch(tmp_path / "root", stage.spec, stage.caps, tmp_path / "log", broken, Allocation(Stop()))
    with pytest.raises(ZeroDivisionError):
        LocalExecutor([sys.executable, "-c", code % start]).run(launch)
    children = psutil.Process().children()
    assert seen and not any(
        "events.jsonl" in str(p.as_dict(["cmdline"], ad_value="")) for p in children if p.is_running()
    )


HANGS = """
import faulthandler, pathlib, sys, time
from pretrain_bench.benchmarks.support.locks import host
from pretrain_bench.harness.contract.events import EventWriter, Start, Step
faulthandler.enable()
events = EventWriter(pathlib.Path(sys.argv[3], "out/events.jsonl"))
events.write(Start(total_steps=9))
for _ in range(4):
    time.sleep(1)
    events._touched = 0.0
    events.alive()
def wait_for_a_batch():
    time.sleep(600)
wait_for_a_batch()
"""


def test_a_stage_without_a_sign_of_life_is_ended_and_its_log_shows_where_it_hung(
    cells: list[PlannedCell], tmp_path: Path
) -> None:
    (tmp_path / "root/out").mkdir(parents=True)
    stage = cells[0].stages[0]
    caps = stage.caps.model_copy(update={"stall_seconds": 3.0})
    launch = StageLaunch(tmp_path / "root", stage.spec, caps, tmp_path / "log", lambda e: None, Allocation(Stop()))
    execution = LocalExecutor([sys.executable, "-c", HANGS]).run(launch)
    assert execution.killed_by == "stall" and execution.measured.wall_seconds > 4 + 3
    assert "wait_for_a_batch" in (tmp_path / "log").read_text()
    evidence = Evidence(stage, execution, StageAccount(), tmp_path, tmp_path / "log", tmp_path)
    verdict = judge(evidence)
    assert verdict.outcome == "timeout" and "stall_seconds" in verdict.message


def test_a_stage_is_stalled_after_many_times_its_usual_step(tmp_path: Path) -> None:
    life = StageLife(tmp_path / "events.jsonl")
    (tmp_path / "events.jsonl").touch()
    now = life.checked

    def silent_for(seconds: float, cap: float | None) -> bool:
        nonlocal now
        os.utime(tmp_path / "events.jsonl", ns=(0, int(now * 1e9)))
        stalled = [life.is_stalled(now := now + 1.0, cap) for _ in range(int(seconds) + 1)]
        return any(stalled)

    assert not silent_for(60, 60) and silent_for(61, 60), "before the first step the cap alone counts"
    life.take(Step(step=1, loss=0, learning_rate=0, gradient_norm=0, seconds=5.0, data_seconds=0))
    assert not silent_for(100, 60) and silent_for(101, 60), "twenty steps of five seconds are more"
    assert not silent_for(1000, None)
    os.utime(tmp_path / "events.jsonl", ns=(0, 7))
    assert not life.is_stalled(now + 1, 60) and not life.is_stalled(now + 10_000, 60), (
        "this process was stopped meanwhile"
    )


def test_status_counts_the_whole_command(tmp_path: Path, bench: Bench, cells: list[PlannedCell]) -> None:
    store = Store(tmp_path / "runs")
    last = cells[0].stages[-1]
    first = cells[0].stages[0].spec
    for folder, spec in ((store.folder("pretrain", first.key), first), (store.partial(last.spec.key), last.spec)):
        name = "spec.json" if spec is first else "root/in/stage.json"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(spec.model_dump_json())
    (store.root / "pretrain/earlier").mkdir()
    (store.root / "pretrain/earlier/record.json").write_text("{}")
    os.utime(store.root / "pretrain/earlier/record.json", (0, 0))
    stages = {"earlier": ("pretrain", 40.0), last.spec.key: ("finetune", 600.0), "ended": ("finetune", 9.0)}
    with noted(store, {key: NotedStage(kind=kind, seconds=s) for key, (kind, s) in stages.items()}):
        (store.root / "finetune/ended").mkdir(parents=True)
        (store.root / "finetune/ended/record.json").write_text("{}")
        with store.lock(last.spec.key, lambda holder: None):
            (command,) = pb.status(store).commands
            (stage,) = pb.status(store).under_way
            assert stage.stage.startswith("scratch -> s3dis-sem at ") and stage.seeds == "0/0"
            assert (command.stages, command.ended, command.seconds_left) == (3, 1, 640.0), "a run from before is left"
            text = " ".join(bench("status", "--runs", str(tmp_path / "runs")).stdout.split())
    assert f"bench run ({host()}, pid {os.getpid()}, since" in text and "1 of 3 stages ended, about 11 min left" in text
    assert "0/0 running 0/0" in text
    assert pb.status(store).commands == [] and not list((tmp_path / "runs/.partial").glob(".command*"))


def test_status_names_the_stages_of_a_linear_probe_and_their_seeds(tmp_path: Path, cells: list[PlannedCell]) -> None:
    store = Store(tmp_path / "runs")
    last = cells[0].stages[-1].spec
    features = last.model_copy(update={"kind": "features", "stage": "features", "seed": 7})
    probe = last.model_copy(update={"probe": LinearProbe(), "parents": {"features": features.key}})
    written = {store.folder("features", features.key) / "spec.json": features}
    written |= {store.partial(s.key) / "root/in/stage.json": s for s in (features, probe)}
    for path, spec in written.items():
        path.parent.mkdir(parents=True)
        path.write_text(spec.model_dump_json())
    shown = {(s.stage, s.seeds) for s in pb.status(store).under_way}
    ratio = last.label_ratio
    assert shown == {
        ("scratch -> s3dis-sem: features", "7"),
        (f"scratch -> s3dis-sem at {ratio}, linear", f"7/{last.seed}"),
    }


def test_status_reports_a_stage_that_makes_no_progress(tmp_path: Path, bench: Bench) -> None:
    store = Store(tmp_path / "runs")
    with store.lock("abcdefgh", lambda holder: None) as partial:
        events = partial / "root/out/events.jsonl"
        events.parent.mkdir(parents=True)
        writer = EventWriter(events)
        writer.write(Start(total_steps=9))
        (stage,) = pb.status(store).under_way
        assert stage.state == "running" and stage.silent_seconds is not None and stage.silent_seconds < 50
        writer.write(Step(step=1, loss=0, learning_rate=0, gradient_norm=0, seconds=2.0, data_seconds=0))
        for minutes, state in ((0.5, "running"), (2, "stalled")):
            os.utime(events, (0, time.time() - 60 * minutes))
            assert pb.status(store).under_way[0].state == state
        text = bench("status", "--runs", str(tmp_path / "runs")).stdout
        assert "stalled for 2 min" in text and f"{host()}, pid {os.getpid()}" in " ".join(text.split())
    assert pb.status(store).under_way[0].state == "interrupted"


def test_a_kill_by_the_kernel_for_want_of_memory_is_recognised(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root/out").mkdir(parents=True)
    stage, counts = cells[0].stages[0], iter([2, 3, 3, 3])
    monkeypatch.setattr("pretrain_bench.harness.executors.local.killed_for_memory", lambda: next(counts))
    launch = StageLaunch(
        tmp_path / "root", stage.spec, stage.caps, tmp_path / "log", lambda e: None, Allocation(Stop())
    )
    executor = LocalExecutor([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert executor.run(launch).killed_by == "memory"
    assert executor.run(launch).killed_by is None, "someone else's doing"
