"""Build an image with the engine's classic builder, through the docker SDK: for engines without BuildKit."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pretrain_bench.harness.executors.engine import first_line
from pretrain_bench.harness.executors.image_contents import Files
from pretrain_bench.harness.executors.image_source import BuildFailed, ImageSource, too_long

if TYPE_CHECKING:
    from docker import DockerClient


def build_classic(
    client: DockerClient, source: ImageSource, seconds: float, on_step: Callable[[int, int], None]
) -> Iterator[str]:
    """Build and tag an image, and yield the log as it arrives. Raises BuildFailed, also after `seconds`."""
    from docker.errors import APIError
    from urllib3.exceptions import ReadTimeoutError

    began = time.monotonic()
    try:
        stream = client.api.build(
            fileobj=build_context(source.files), custom_context=True, encoding=None, tag=source.tag,
            buildargs=source.arguments, labels=source.labels, decode=True, rm=True, forcerm=True, pull=False,
            timeout=int(seconds),
        )  # fmt: skip
        for part in stream:
            text = part.get("stream") or part.get("error") or ""
            yield text
            if text.startswith(("Step ", "STEP ")):  # Docker's builder; podman's adds a colon after the numbers
                step, _, steps = text.split()[1].rstrip(":").partition("/")
                on_step(int(step), int(steps))
            if "error" in part:
                raise BuildFailed(part["error"])
            if time.monotonic() - began > seconds:
                raise too_long(seconds)
    except ReadTimeoutError:
        raise too_long(seconds) from None
    except (APIError, OSError) as error:
        raise BuildFailed(first_line(error)) from None


def build_context(files: Files) -> io.BytesIO:
    """Pack files into a tar archive; equal files give equal bytes, so that the engine's cache is used."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer
