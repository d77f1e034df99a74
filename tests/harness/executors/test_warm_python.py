"""Stages forked from a process that has imported torch: each is a process of its own, and none outlives the harness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pretrain_bench.harness.executors import local, warm_python
from pretrain_bench.harness.executors.base import Allocation, StageLaunch, Stop
from pretrain_bench.harness.executors.local import LocalExecutor, stage_environment
from pretrain_bench.harness.executors.usage import TreeSampler
from pretrain_bench.harness.executors.warm_python import ForkedStage, WarmPython
from pretrain_bench.harness.planning.stage_specs import PlannedCell

PROBE = """
import json, os, random, resource, sys
preloaded = "torch" in sys.modules
import numpy
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "session": os.getsid(0) == os.getpid(), "preloaded": preloaded,
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "file": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
    "drawn": [random.random(), numpy.random.rand()], "main": __name__, "variable": os.environ.get("MARK"),
}))
sys.exit(7)
"""


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a stage that finds the modules `probe` and `sleeps`."""
    for name in ("torch", "pydantic"):  # the real ones take seconds
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "sleeps.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    (tmp_path / "saves.py").write_text(
        "import sys, time\nprint('begun', flush=True)\n"
        "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('saved')\n    sys.exit(130)\n"
    )
    environment = {**stage_environment(), "PYTHONPATH": str(tmp_path), "MARK": tmp_path.name}
    yield environment
    for warm in WarmPython._idle.pop(tuple(sorted(environment.items())), []):
        warm.close()


def fork(
    environment: dict[str, str],
    folder: Path,
    *arguments: str,
    disk_mib: int | None = None,
    warm: WarmPython | None = None,
) -> ForkedStage:
    with (folder / "log.txt").open("ab") as log:
        stage = (warm or WarmPython.take(environment)).fork(arguments, folder, log, disk_mib, lambda: False)
    assert stage is not None
    return stage


def printed(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


def until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_each_stage_is_a_process_of_its_own(probe: dict[str, str], tmp_path: Path) -> None:
    """Own session, limits, folder and output; one process forks both, and unseeded numbers differ all the same. A stage reads
    modules as they are when it starts."""
    first = fork(probe, tmp_path, "probe", "a", "b", disk_mib=3)
    assert first.wait() == 7 == first.poll()
    parents = {warm._process.pid for warm in WarmPython._idle[tuple(sorted(probe.items()))]}
    (tmp_path / "probe.py").write_text(PROBE.replace("exit(7)", "exit(8)"))
    second = fork(probe, tmp_path, "probe")
    assert second.wait() == 8 and second.pid != first.pid
    assert (
        parents == {warm._process.pid for warm in WarmPython._idle[tuple(sorted(probe.items()))]} and len(parents) == 1
    )
    one, two = printed(tmp_path)
    assert one["arguments"] == ["a", "b"] and two["arguments"] == []
    assert one["folder"] == str(tmp_path) and one["session"] and one["preloaded"] and one["main"] == "__main__"
    assert one["core"] == 0 and one["file"] == (3 << 20) + 1 and two["file"] == -1
    assert one["variable"] == tmp_path.name
    assert one["drawn"][0] != two["drawn"][0] and one["drawn"][1] != two["drawn"][1]


def test_signals_reach_the_stage_and_end_it_alone(probe: dict[str, str], tmp_path: Path) -> None:
    stage = fork(probe, tmp_path, "sleeps")
    until(lambda: (tmp_path / "log.txt").read_text() == "begun\n")
    assert stage.poll() is None
    os.killpg(stage.pid, signal.SIGTERM)
    assert stage.wait() == -signal.SIGTERM
    assert fork(probe, tmp_path, "probe").wait() == 7, "the process that forked it lives on"


def test_a_stage_dies_with_the_process_that_forked_it(probe: dict[str, str], tmp_path: Path) -> None:
    """As where the kernel kills that process for lack of memory."""
    warm = WarmPython.take(probe)
    stage = fork(probe, tmp_path, "sleeps", warm=warm)
    until(lambda: (tmp_path / "log.txt").exists() and (tmp_path / "log.txt").read_text() == "begun\n")
    warm._process.kill()
    assert stage.wait() == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(stage.pid) or psutil.Process(stage.pid).status() == psutil.STATUS_ZOMBIE)


def test_nothing_outlives_a_killed_harness(probe: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys, json, time, pathlib\n"
        "from pretrain_bench.harness.executors.warm_python import WarmPython\n"
        "warm = WarmPython.take(json.loads(sys.argv[1]))\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "stage = warm.fork(['sleeps'], folder, (folder / 'log.txt').open('ab'), None, lambda: False)\n"
        "print(warm._process.pid, stage.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(probe), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert harness.stdout is not None
    pids = [int(word) for word in harness.stdout.readline().split()]
    assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
    harness.kill()
    harness.wait()
    until(lambda: not any(map(psutil.pid_exists, pids)))


def test_an_idle_process_ends(probe: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next stage is forked by another one."""
    script = Path(warm_python.__file__).read_text().replace("IDLE_SECONDS = 60.0", "IDLE_SECONDS = 0.4")
    (tmp_path / "impatient.py").write_text(script)
    monkeypatch.setattr(warm_python, "__file__", str(tmp_path / "impatient.py"))
    assert fork(probe, tmp_path, "probe").wait() == 7
    (idle,) = WarmPython._idle[tuple(sorted(probe.items()))]
    assert idle._process.wait(60) == 0
    assert fork(probe, tmp_path, "probe").wait() == 7
    assert WarmPython._idle[tuple(sorted(probe.items()))] != [idle]


def test_a_signal_to_every_process_of_a_job_is_for_the_stage(probe: dict[str, str], tmp_path: Path) -> None:
    """A batch system that ends a job signals the forking process too, which must not take its stage along."""
    warm = WarmPython.take(probe)
    stage = fork(probe, tmp_path, "saves", warm=warm)
    until(lambda: (tmp_path / "log.txt").exists() and "begun" in (tmp_path / "log.txt").read_text())
    for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
        os.kill(warm._process.pid, number)
    os.kill(stage.pid, signal.SIGUSR2)
    time.sleep(0.3)
    assert stage.poll() is None and warm._process.poll() is None
    os.kill(stage.pid, signal.SIGINT)
    assert stage.wait() == 130
    assert "saved" in (tmp_path / "log.txt").read_text()


def test_a_fork_that_ends_before_it_is_a_stage_is_no_stage(probe: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("ab") as log:
        assert WarmPython.take(probe).fork(["probe"], tmp_path / "gone", log, None, lambda: False) is None


@pytest.fixture
def launch(cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageLaunch:
    """A stage without inputs, which fails; PYTHONPATH has the folder `modules`."""
    (tmp_path / "root/out").mkdir(parents=True)
    (tmp_path / "modules").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    stage = cells[0].stages[0]
    return StageLaunch(tmp_path / "root", stage.spec, stage.caps, tmp_path / "log", lambda _: None, Allocation(Stop()))


def test_the_executor_forks_its_stages(launch: StageLaunch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has ended when it is first looked at."""
    monkeypatch.setattr(local, "start_stage", lambda *_, **__: pytest.fail("it was started without"))
    for _ in range(2):
        assert LocalExecutor().run(launch).returncode == 1
    assert launch.log.read_text().count("stage.json") >= 2
    assert TreeSampler(2**22 + 1).measured(1.0, 0).cpu_seconds == 0


def test_without_the_packages_the_executor_starts_the_stage_itself(launch: StageLaunch, tmp_path: Path) -> None:
    """So that its log shows the error."""
    (tmp_path / "modules/torch.py").write_text("raise ImportError('libcudart.so.12: cannot open')\n")
    assert LocalExecutor().run(launch).returncode == 1
    assert "ImportError: libcudart.so.12: cannot open" in launch.log.read_text()


def test_packages_that_hang(launch: StageLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is cancelled meanwhile never starts; otherwise it starts without them, under its own limits."""
    (tmp_path / "modules/torch.py").write_text("import time; time.sleep(600)\n")
    started: list[object] = []
    monkeypatch.setattr(local, "start_stage", lambda *given, **_: [started.append(given), sys.exit("started")])
    monkeypatch.setattr(warm_python, "START_SECONDS", 0.0)
    with pytest.raises(SystemExit, match="started"):
        LocalExecutor().run(launch)
    assert len(started) == 1
    launch.allocation.stop.ask()
    assert LocalExecutor().run(launch) == local.CANCELLED and len(started) == 1
