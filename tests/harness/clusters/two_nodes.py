"""A real Slurm of two nodes on this machine, and functions to disturb it."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import SHARED
from tests.faults.suite import REPOSITORY

START = SHARED / "tools/start-slurm.sh"
SECONDS = 400


def output_of(driver: subprocess.Popen[str], code: int = 0, seconds: float = SECONDS) -> tuple[str, str]:
    """What a driver has printed on stdout and stderr, once it has ended with this exit code."""
    out, error = driver.communicate(timeout=seconds)
    assert driver.returncode == code, f"exit code {driver.returncode}\n{out}\n{error}"
    return out, error


class TwoNodes:
    """The running cluster; `folder` has its configuration and process ids."""

    def __init__(self, conf: Path) -> None:
        self.folder = conf.parent

    def suite(
        self, runs: Path, s3dis: Path, seeds: int = 1, *options: str, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a driver of the suite of sleeping stages."""
        command = [sys.executable, "-m", "tests.faults.on_slurm", str(runs), str(s3dis), str(seeds), *options]
        paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        variables = {**os.environ, "PYTHONPATH": paths, **environment}
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def kill(
        self, whom: str, driver: subprocess.Popen[str], again: Callable[[], subprocess.Popen[str]], runs: Path
    ) -> subprocess.Popen[str]:
        """Kill a worker of this folder of runs, the driver (and start it `again`), or a daemon (and start that again); returns
        the driver that is left."""
        if whom == "driver":
            driver.kill()
            driver.communicate()
            return again()
        if whom != "worker":
            self.restart(whom)
        for process in self.workers(runs)[:1] if whom == "worker" else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return driver

    def workers(self, runs: Path | None = None) -> list[psutil.Process]:
        """The processes of jobs that are running stages, of all folders of runs or of one."""
        module = ["-u", "-m", "submitit.core._submit"]
        found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[1:4] == module]
        return [p for p in found if runs is None or Path(p.info["cmdline"][4]).is_relative_to(runs)]

    def clear(self) -> None:
        """End jobs and resume nodes that a failed test left behind."""
        self._run("scancel", "--user", getpass.getuser())
        self._run("scontrol", "update", "nodename=n1,n2", "state=resume")

    def wait_for_a_worker(self, runs: Path) -> psutil.Process:
        """Wait for the first worker of this folder of runs: one of an earlier test may still be ending."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if running := self.workers(runs):
                return running[0]
            time.sleep(0.1)
        raise AssertionError("no worker has started")

    def pid(self, daemon: str) -> int:
        """The process id of a daemon."""
        return int((self.folder / f"{daemon}.pid").read_text())

    @staticmethod
    def _running_on(node: str) -> list[psutil.Process]:
        """The daemons of a node's job steps, and their children. Both nodes are on this machine."""
        processes = []
        for step in psutil.process_iter(["name"]):
            if step.info["name"] != "slurmstepd":
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                started = step.children(recursive=True)
                if any(p.environ().get("SLURMD_NODENAME") == node for p in started):
                    processes += [step, *started]
        return processes

    def restart(self, daemon: str) -> None:
        """Kill the daemon of a node with all its jobs, or end the controller, and start it again."""
        node, main_process = daemon.partition("-")[2], psutil.Process(self.pid(daemon))
        if node:
            for process in (main_process, *self._running_on(node)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        else:  # a killed controller forgets its last jobs, reuses their ids, and drains the nodes
            main_process.terminate()
            main_process.wait(60)
        time.sleep(1)
        command = [daemon.partition("-")[0], "-f", str(self.folder / "slurm.conf"), *(["-N", node] if node else [])]
        subprocess.run(
            command, check=True, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if node:
            # When a node registers, Slurm assumes for BatchStartTimeout (10 s) that unknown jobs are still starting, counted from
            # their last sign of life. Only the controller triggers another registration, and it rarely does.
            time.sleep(20)
            self._run("scontrol", "reconfigure")

    def _run(self, *command: str) -> None:
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        subprocess.run(command, env=environment, capture_output=True)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    """Slurm, started and later stopped unless it is already running. Skips without the tool, unless BENCH_REQUIRE_SLURM is set."""
    pytest.importorskip("submitit") if not os.environ.get("BENCH_REQUIRE_SLURM") else __import__("submitit")
    if not START.is_file() and not os.environ.get("BENCH_REQUIRE_SLURM"):
        pytest.skip("needs a Slurm of two nodes, which ../shared/tools/start-slurm.sh starts")
    done = subprocess.run(["bash", START], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    conf = re.search(r"export SLURM_CONF=(\S+)", done.stdout)
    assert conf is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", conf[1])
        yield TwoNodes(Path(conf[1]))
    if "slurm: runs" not in done.stdout:
        subprocess.run(["bash", START, "stop"], check=True)
