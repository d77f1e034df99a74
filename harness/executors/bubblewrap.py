"""Run a stage as a process in its own namespaces (bubblewrap), with the local Python and without a container engine.

The sandbox has no network, a read-only system, no capabilities, no new privileges and no root. Of this machine's files it
holds only the system's programs, the packages of this Python and the folders of the contract, of which only `/bench/out` is
writable. Memory and process count are limited by a control group if this process may create one, otherwise by sampling.
docs/security.md has the full list and the differences from a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.executors.base import Execution, StageLaunch
from pretrain_bench.harness.executors.capped_log import CappedLog
from pretrain_bench.harness.executors.control_group import ControlGroup, control_group, group_name, remove_left_over
from pretrain_bench.harness.executors.local import ProcessWatch, follow_process, stage_environment, start_stage
from pretrain_bench.harness.executors.output_folder import chown_output, drop_special_files, plain_modes
from pretrain_bench.harness.executors.sandbox import PIDS, TRITON_CACHE, contract_binds, sandbox_user
from pretrain_bench.harness.executors.sandbox_view import View, python_folders, view_arguments

BWRAP = "bwrap"
OLDEST = (0, 7)
"""The first version that can limit the size of a tmpfs."""
PROBE_SECONDS = 120.0
LOG_SECONDS = 60.0
UNLIMITED = ("CPUs beyond the thread count", "GPU memory", "disk use between samples a second apart")
SAMPLED = ("memory between samples", "pids between samples")


class BubblewrapExecutor:
    """Runs stages in namespaces: `command` with the stage's kind and root as arguments. `hidden` are folders, such as those with
    labels, that stages cannot see even if a visible package folder contains them."""

    name = "bubblewrap"
    label_isolation = "mounts"

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "pretrain_bench.methods.stage"),
        hidden: Iterable[Path] = (),
    ) -> None:
        self.command, self.hidden = tuple(command), tuple(hidden)
        remove_left_over()
        self.limits_by_group = can_limit()
        self.not_enforced: tuple[str, ...] = UNLIMITED if self.limits_by_group else (*UNLIMITED, *SAMPLED)

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`. Raises EnvironmentCannot if bubblewrap cannot create the sandbox."""
        out = launch.root / "out"
        chown_output(out, sandbox_user())
        plain_modes(launch.root / "in")
        name = group_name(os.getpid(), launch.spec.key)
        memory = None if launch.caps.memory_mib is None else launch.caps.memory_mib << 20
        with contextlib.ExitStack() as ended:
            ended.callback(drop_special_files, out)
            group = ended.enter_context(control_group(name, memory, PIDS)) if self.limits_by_group else None
            if self.limits_by_group and group is None:
                raise EnvironmentCannot("a control group for the stage can no longer be created")
            status, for_bwrap = os.pipe()
            ended.callback(os.close, status)
            try:
                process = self._start(launch, group, for_bwrap)
            finally:
                os.close(for_bwrap)
            watch = _SandboxWatch(process, launch, group, status)
            with _log_kept(process, launch.log):
                execution = follow_process(watch)
            watch.check_ran(launch.log)
            return execution

    def _start(self, launch: StageLaunch, group: ControlGroup | None, status: int) -> subprocess.Popen[bytes]:
        """Start the sandbox. Raises EnvironmentCannot if it does not start."""
        environment = sandbox_environment(launch.allocation.gpus)
        labels = [view.resolve().parent for view in (launch.root / "data").glob("*/*")]
        store = launch.root.resolve().parents[2]
        view = View(
            tuple(python_folders(environment)), (*self.hidden, *labels, store, cache_folder()), launch.spec.device
        )
        inside = ["--json-status-fd", str(status), *view_arguments(view, contract_binds(launch.root))]
        command = [*sandboxed(inside), *self.command, launch.spec.kind, "--root", "/bench"]
        join = group.join if group is not None else _nothing
        try:
            return start_stage(command, environment, launch, subprocess.PIPE, join, (status,))
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentCannot(f"bubblewrap cannot be started: {error}") from None


class _SandboxWatch(ProcessWatch):
    """Monitors bubblewrap's process, which reports its first child and its exit code to the descriptor `status`."""

    folder_seconds = 1.0

    def __init__(
        self, process: subprocess.Popen[bytes], launch: StageLaunch, group: ControlGroup | None, status: int
    ) -> None:
        super().__init__(process, launch)
        self.group, self.status, self.reports = group, status, b""
        os.set_blocking(status, False)

    def send(self, number: signal.Signals) -> None:
        """Signal the stage's process group. SIGKILL, and any signal before the group exists, goes to bubblewrap and ends the
        sandbox."""
        if number != signal.SIGKILL and (first := self._report("child-pid")) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(first, number)
                return
        super().send(number)

    def sample(self) -> None:
        if self.group is not None:  # the kernel enforces the caps
            self.sampler.sample()
            self.gpus.sample()
            return
        super().sample()
        if self.sampler.processes > PIDS:
            self.kill("pids")

    def was_killed_for_memory(self) -> bool:
        return self.group.killed_for_memory() if self.group is not None else super().was_killed_for_memory()

    def check_ran(self, log: Path) -> None:
        """Raises EnvironmentCannot if bubblewrap failed, or was killed, before the stage's command ended."""
        code = self.process.returncode
        if code == 0 or self.killed_by is not None or self._report("exit-code") is not None:
            return
        if code < 0:
            raise EnvironmentCannot(f"bubblewrap was ended by signal {-code}")
        lines = log.read_text(errors="replace").splitlines()
        raise EnvironmentCannot(f"bubblewrap cannot create the sandbox: {lines[-1] if lines else 'it gives no reason'}")

    def _report(self, name: str) -> int | None:
        """A number that bubblewrap has reported; None before that."""
        with contextlib.suppress(BlockingIOError):
            self.reports += os.read(self.status, 1 << 16)
        for line in self.reports.splitlines():
            with contextlib.suppress(ValueError):
                if name in (report := json.loads(line)):
                    return int(report[name])
        return None


@contextlib.contextmanager
def _log_kept(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Copy the process's output to the log during the block; the stage itself never holds its log file."""
    thread = threading.Thread(target=_copy_output, args=(process, log), daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=LOG_SECONDS)


def _copy_output(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    with process.stdout as output, contextlib.suppress(OSError), log.open("ab", buffering=0) as file:
        kept = CappedLog(file)
        while part := os.read(output.fileno(), 1 << 16):
            kept.add(part)


def sandboxed(inside: Sequence[str]) -> list[str]:
    """The beginning of a command in a sandbox with this view (`view_arguments`). Run as root, it drops all rights and gives the
    command another user."""
    spaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    ends = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if os.geteuid() != 0:
        nested = ["--disable-userns"] if version() >= (0, 8) else []
        return [BWRAP, "--unshare-user", *nested, *spaces, *ends, *inside, "--"]
    user = str(sandbox_user())
    change = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    return [BWRAP, *spaces, *ends, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", *inside, "--", *change]


def sandbox_environment(gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of a stage in a sandbox, which has its own folder for temporary files and Triton's cache."""
    kept = {name: value for name, value in stage_environment(gpus).items() if name != "TMPDIR"}
    return {**kept, TRITON_CACHE: "/tmp/triton"}


@cache
def version() -> tuple[int, ...]:
    """The version of bubblewrap; empty if it is not installed."""
    if shutil.which(BWRAP) is None:
        return ()
    text = subprocess.run([BWRAP, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(n) for n in text.strip().rpartition(" ")[2].split(".") if n.isdigit())


_PROBE = """
import importlib.util, pathlib, sys
import pretrain_bench.harness.contract.stage
assert importlib.util.find_spec("torch"), "torch is not visible in the sandbox"
if sys.argv[1] == "cuda":
    import torch
    assert torch.cuda.is_available(), "torch finds no GPU in the sandbox"
"""


def why_not(device: str = "cpu") -> str:
    """Why a stage for `device` cannot run in a sandbox here; empty if it can. Tested once per process."""
    return _why_not(device, tuple(sorted(sandbox_environment().items())))


@cache
def _why_not(device: str, environment: tuple[tuple[str, str], ...]) -> str:
    if not version():
        return "bwrap is not installed (package bubblewrap)"
    if version() < OLDEST:
        return f"bwrap {'.'.join(map(str, version()))} is too old; {'.'.join(map(str, OLDEST))} or later is needed"
    variables = dict(environment)
    view = View(tuple(python_folders(variables)), (), device)
    command = [*sandboxed(view_arguments(view, [])), sys.executable, "-c", _PROBE, device]
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else ""


@cache
def can_limit() -> bool:
    """Whether a stage can get its own control group, which its process can join."""
    with control_group(group_name(os.getpid(), "probe"), 1 << 30, PIDS) as group:
        if group is None:
            return False
        try:
            return subprocess.run(["true"], preexec_fn=group.join, check=False).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False


def _nothing() -> None:
    """Leave the stage in the control group of this process."""
