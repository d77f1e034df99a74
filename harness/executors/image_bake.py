"""Build an image with `docker buildx bake`, if the docker command has buildx and the engine has BuildKit."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_bench.harness.executors.engine import first_line
from pretrain_bench.harness.executors.image_contents import INPUTS_LABEL, Files
from pretrain_bench.harness.executors.image_source import BuildFailed, ImageSource, too_long

if TYPE_CHECKING:
    from docker import DockerClient

BUILDER = "default"
"""The builder inside the engine at DOCKER_HOST, or the local one: unlike other builders it sees the engine's images."""
BAKE_FILE, CONTEXT, TARGET = "bake.json", "context", "image"
STEP = re.compile(r"#\d+ \[(?:(\S+) +)?(\d+)/\d+\] ")
STEP_INSTRUCTIONS = ("ADD", "COPY", "FROM", "RUN", "WORKDIR")
GRACE_SECONDS = 10.0


@functools.cache
def can_bake() -> bool:
    """Whether the docker command has buildx, and its default builder is the engine's own BuildKit."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "buildx", "inspect", BUILDER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and re.search(r"^Driver:\s+docker$", done.stdout, re.MULTILINE) is not None


def bake(
    client: DockerClient, source: ImageSource, seconds: float, on_step: Callable[[int, int], None]
) -> Iterator[str]:
    """Build and tag an image, and yield the log as it arrives. Raises BuildFailed, also after `seconds`."""
    with tempfile.TemporaryDirectory(prefix="bench-bake-") as scratch:
        folder = Path(scratch)
        _write_context(folder / CONTEXT, source.files)
        (folder / BAKE_FILE).write_text(json.dumps(bake_file(source), indent=1, sort_keys=True), encoding="utf-8")
        steps, started = _count_steps(source.files["Dockerfile"].decode()), set()
        for line in _run_bake(folder, seconds):
            yield line
            if (match := STEP.match(line)) and match.groups() not in started:
                started.add(match.groups())
                on_step(min(len(started), steps), steps)
    _check_tagged(client, source)


def bake_file(source: ImageSource) -> dict[str, Any]:
    """The bake file of one target, ready for JSON."""
    target = {
        "context": CONTEXT,
        "dockerfile": "Dockerfile",
        "tags": [source.tag],
        "args": {name: _literal(value) for name, value in source.arguments.items()},
        "labels": {name: _literal(value) for name, value in source.labels.items()},
        "output": ["type=docker"],
        "pull": False,
    }
    return {"target": {TARGET: target}}


def _literal(text: str) -> str:
    """Escape text so that bake expands no template in it."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _write_context(folder: Path, files: Files) -> None:
    """Write the build context with the modes and times that the classic builder uses, independent of the umask."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in sorted(folder.rglob("*"), reverse=True):  # folders last: writing their content changes their time
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (0, 0))


def _run_bake(folder: Path, seconds: float) -> Iterator[str]:
    """Run bake in its folder and yield its lines. Raises BuildFailed if it does not start, fails, or exceeds `seconds`."""
    command = ["docker", "buildx", "bake", "--builder", BUILDER, "--file", BAKE_FILE, "--progress", "plain", TARGET]
    # An attestation would turn the image into a list of manifests.
    environment = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuildFailed(first_line(error)) from None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _end(process)

    timer = threading.Timer(seconds, expire)
    timer.start()
    message = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            yield line
            if line.startswith("ERROR:"):
                message = line.removeprefix("ERROR:").strip()
        process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise too_long(seconds)
    if process.returncode != 0:
        raise BuildFailed(message or f"docker buildx bake ended with exit code {process.returncode}")


def _end(process: subprocess.Popen[str]) -> None:
    """Stop bake and its plugin with SIGTERM, which cancels the build, and kill them after GRACE_SECONDS."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)


def _count_steps(dockerfile: str) -> int:
    """The number of build steps that BuildKit reports for a Dockerfile."""
    text = dockerfile.replace("\\\n", " ")
    return sum(line.split(" ", 1)[0] in STEP_INSTRUCTIONS for line in text.splitlines())


def _check_tagged(client: DockerClient, source: ImageSource) -> None:
    """Raises BuildFailed if the engine does not have the built image under its name."""
    from docker.errors import APIError

    try:
        labels = client.images.get(source.tag).labels
    except (APIError, OSError) as error:
        raise BuildFailed(f"the image was built, but is not in the engine: {first_line(error)}") from None
    if labels.get(INPUTS_LABEL) != source.labels[INPUTS_LABEL]:
        raise BuildFailed(f"the image was built, but {source.tag} names a different image; check BUILDX_* variables")
