"""Run a stage as a subprocess of this user, for machines without a container engine.

Enforced: wall time (soft signal, grace period, kill of the whole process group); by sampling, memory of the process tree and
size of the output; thread count. Not enforced: CPU and GPU limits beyond the thread count, network access, and access to the
user's other files. The label isolation is therefore "none".
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import psutil

from pretrain_bench.benchmarks.support.process_limits import killed_for_memory
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import KILLED, Execution, StageLaunch, Watch, library_variables
from pretrain_bench.harness.executors.usage import GpuSampler, TreeSampler
from pretrain_bench.harness.executors.warm_python import ForkedStage, WarmPython, limit_process
from pretrain_bench.harness.planning.code_digest import package_folder

STAGE_MODULE = "pretrain_bench.methods.stage"
STAGE_COMMAND = (sys.executable, "-m", STAGE_MODULE)
CAN_FORK = hasattr(os, "pidfd_open")
CANCELLED = Execution(
    -signal.SIGINT,
    "cancel",
    False,
    Measured(wall_seconds=0, cpu_seconds=0, peak_memory_bytes=0, written_bytes=0, output_bytes=0),
)
"""How a stage ended that was cancelled before it started."""


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

    def __init__(self, command: Sequence[str] = STAGE_COMMAND) -> None:
        self.command = tuple(command)

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`. Where the kernel allows it, the stage is forked from a process that has imported
        torch (`warm_python`)."""
        arguments = [launch.spec.kind, "--root", str(launch.root)]
        environment = stage_environment(launch.allocation.gpus)
        process: subprocess.Popen[bytes] | ForkedStage | None = None
        with launch.log.open("ab") as output:
            if self.command == STAGE_COMMAND and CAN_FORK:
                try:
                    process = fork_stage([STAGE_MODULE, *arguments], environment, launch, output)
                except KeyboardInterrupt:
                    return CANCELLED
            process = process or start_stage([*self.command, *arguments], environment, launch, output)
        return follow_process(ProcessWatch(process, launch))


def fork_stage(
    arguments: Sequence[str], environment: Mapping[str, str], launch: StageLaunch, output: BinaryIO
) -> ForkedStage | None:
    """Start a stage from a warm process; None where there is none. Raises KeyboardInterrupt where it is cancelled before."""
    warm = WarmPython.take({**environment, **library_variables(launch.spec.threads)})
    stop = launch.allocation.stop
    return warm.fork(arguments, launch.root, output, launch.caps.disk_mib, lambda: bool(stop.asked))


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
        limit_process(launch.caps.disk_mib)

    return subprocess.Popen(
        command,
        cwd=launch.root,
        env={**environment, **library_variables(launch.spec.threads)},
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

    def __init__(self, process: subprocess.Popen[bytes] | ForkedStage, launch: StageLaunch) -> None:
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
        return Execution(self.process.wait(), self.killed_by, self.soft_at is not None, measured)

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
