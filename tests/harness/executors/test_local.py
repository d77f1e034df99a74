"""The environment and the end of a stage's process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

import pretrain_bench as pb
from pretrain_bench.harness.executors.base import Allocation, StageLaunch, Stop
from pretrain_bench.harness.executors.local import LocalExecutor, stage_environment
from pretrain_bench.harness.planning.stage_specs import PlannedCell


def test_a_stage_finds_the_packages_and_gpus_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"modules{os.pathsep}{os.pathsep}/opt/torch")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("PYTHONUSERBASE", "/home/me/packages")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = stage_environment(("GPU-a", "GPU-b"))
    assert found["PYTHONPATH"].split(os.pathsep)[:2] == [str(tmp_path / "modules"), "/opt/torch"]
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID" and found["PYTHONUSERBASE"] == "/home/me/packages"
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b" and "secret" not in found.values()
    assert stage_environment()["CUDA_VISIBLE_DEVICES"] == "1"


def test_doctor_looks_for_torch_where_a_stage_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = next(d for d in pb.doctor(tmp_path / "runs") if d.what == "torch")
    assert torch.state == "ok" and "threads" in torch.detail
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = {d.what: d for d in pb.doctor(tmp_path / "runs")}
    assert broken["torch"].state == "broken" and broken["GPU"].state == "missing"
    assert "a stage cannot start: ImportError: libcudart.so.12: cannot open" in broken["torch"].detail


def test_nothing_runs_on_when_following_a_stage_fails(cells: list[PlannedCell], tmp_path: Path) -> None:
    """Such as a progress bar that raises."""
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
    assert seen and not [p for p in psutil.Process().children() if "events.jsonl" in " ".join(p.cmdline())]
