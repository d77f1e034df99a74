"""Run a stage as a subprocess of this user, for machines without a container engine.

Enforced: wall time (soft signal, grace period, kill of the whole process group); by sampling, memory of the process tree and
size of the output; thread count. Not enforced: CPU and GPU limits beyond the thread count, network access, and access to the
user's other files. The label isolation is therefore "none".
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import psutil

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.support.process_limits import killed_for_memory
from pretrain_bench.harness.executors.base import KILLED, Execution, StageLaunch, Watch, thread_variables
from pretrain_bench.harness.executors.usage import GpuSampler, TreeSampler
from pretrain_bench.harness.planning.code_digest import package_folder

PR_SET_PDEATHSIG = 1


class LocalExecutor:
    """Runs a stage as a subprocess: `command` with the stage's kind and root as arguments."""

    name = "local"
    label_isolation = "none"
    not_enforced: tuple[str, ...] = (
        "CPUs beyond the thread count",
        "GPU memory",
        "network",
        "files of the same user",
        "pids",
    )

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "pretrain_bench.methods.stage")) -> None:
        self.command = tuple(command)

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`."""
        command = [*self.command, launch.spec.kind, "--root", str(launch.root)]
        environment = stage_environment(launch.allocation.gpus)
        with launch.log.open("ab") as output:
            process = start_stage(command, environment, launch, output)
        return follow_process(ProcessWatch(process, launch))


def start_stage(
    command: Sequence[str],
    environment: Mapping[str, str],
    launch: StageLaunch,
    output: BinaryIO | int,
    join: Callable[[], None] = lambda: None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a stage's process, which calls `join` before its command, keeps `descriptors` open and prints to `output`."""

    def before_command() -> None:
        join()
        _limit_this_process(launch.caps)

    return subprocess.Popen(
        command,
        cwd=launch.root,
        env={**environment, **thread_variables(launch.spec.threads)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=before_command,
        pass_fds=tuple(descriptors),
    )


def follow_process(watch: ProcessWatch) -> Execution:
    """Follow a stage's process until it has ended; on any error, kill it so that no stage keeps running unobserved."""
    try:
        remember_child(watch.out.parent.parent, watch.process.pid)
        return watch.until_the_end()
    except BaseException:  # such as a full disk
        watch.send(signal.SIGKILL)
        watch.process.wait()
        raise


class ProcessWatch(Watch):
    """Monitors a process and its descendants."""

    poll_seconds, sample_seconds, folder_seconds = 0.05, 0.5, 2.0

    def __init__(self, process: subprocess.Popen[bytes], launch: StageLaunch) -> None:
        super().__init__(launch)
        self.process = process
        self.killed_before = killed_for_memory()
        self.sampler = TreeSampler(process.pid)
        self.gpus = GpuSampler(launch.allocation.gpus)

    def until_the_end(self) -> Execution:
        self.follow()
        self.send(signal.SIGKILL)  # processes that the stage left in its group
        while self.pass_events():
            pass
        if self.was_killed_for_memory():
            self.killed_by = self.killed_by or "memory"
        measured = self.gpus.added_to(self.sampler.measured(time.monotonic() - self.began, self.output_bytes()))
        return Execution(self.process.returncode, self.killed_by, self.soft_at is not None, measured)

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed the stage for lack of memory before a sample showed it."""
        return self.process.returncode in KILLED and killed_for_memory() > self.killed_before

    def ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        return self.process.poll() is not None

    def sample(self) -> None:
        self.sampler.sample()
        self.gpus.sample()
        if self.caps.memory_mib is not None and self.sampler.memory_bytes > self.caps.memory_mib << 20:
            self.kill("memory")

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


KEPT_VARIABLES = (
    "PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTHONHOME", "PYTHONUSERBASE",
    "PYTHONNOUSERSITE",
)  # fmt: skip


def stage_environment(gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of a stage, without its number of threads: the variables that Python and CUDA need to find the same
    packages and GPUs as this process, and no other variables of the user."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    if gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    # Module systems set PYTHONPATH. Its relative folders refer to this working directory, not to the stage's.
    own = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([*own, str(package_folder().parent)]),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _limit_this_process(caps: BudgetHalf) -> None:
    """In the child process: forbid core dumps and files above the disk cap; on Linux, have the kernel kill the stage when the
    harness dies. Ignore SIGUSR2, which a batch system sends to all processes of a job before its time limit; only the harness
    handles it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if caps.disk_mib is not None:
        # One byte more, so that the output's size shows that the cap was exceeded.
        resource.setrlimit(resource.RLIMIT_FSIZE, ((caps.disk_mib << 20) + 1, resource.RLIM_INFINITY))
    die_with_parent()


def die_with_parent() -> None:
    """On Linux, have the kernel kill the calling process when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def remember_child(folder: Path, pid: int) -> None:
    """Record the stage's process, so that the next harness can kill it if the kernel did not."""
    with contextlib.suppress(psutil.Error):
        created = psutil.Process(pid).create_time()
        (folder / "child.json").write_text(json.dumps({"pid": pid, "created": created}))


def end_left_over_child(folder: Path) -> None:
    """Kill a stage process that a killed harness left behind in this partial folder."""
    try:
        child = json.loads((folder / "child.json").read_text())
        process = psutil.Process(child["pid"])
        if abs(process.create_time() - child["created"]) < 1:
            os.killpg(child["pid"], signal.SIGKILL)
            process.wait(timeout=10)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return
