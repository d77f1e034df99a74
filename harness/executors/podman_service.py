"""Start podman's service, which serves Docker's interface. Podman has no daemon, so each harness starts its own."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors.warm_python import die_with_parent

START_SECONDS = 30.0


@cache
def service() -> str:
    """Start podman's service on its own socket, once per process; it ends with the process. Returns the socket's address.

    Raises EnvironmentCannot if podman is not installed or does not start.
    """
    if shutil.which("podman") is None:
        raise EnvironmentCannot("podman is not installed (packages podman and catatonit)")
    folder = Path(tempfile.mkdtemp(prefix="bench-podman-"))
    socket = folder / "podman.sock"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["podman", "system", "service", "--time", "0", f"unix://{socket}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent,
            cwd=folder,  # conmon leaves a file `oom` in the working folder of the service
        )  # fmt: skip

    def stop() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    deadline = time.monotonic() + START_SECONDS
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = (folder / "log").read_text(errors="replace").splitlines()
            raise EnvironmentCannot(f"podman does not start: {lines[-1] if lines else 'it gives no reason'}")
        time.sleep(0.05)
    return f"unix://{socket}"
