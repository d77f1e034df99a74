"""`/bench/out/events.jsonl`: one JSON object per line, appended by the stage; other readers treat it as untrusted text."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, TypeAdapter, ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.benchmarks.support.foreign_files import open_plain

EVENTS_FILE = "events.jsonl"
MAX_LINE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
"""A larger file is not read: a million steps take less, and a sparse file can be endless."""
ALIVE_SECONDS = 1.0
"""Least interval between signs of life."""

Text = Annotated[str, BeforeValidator(lambda text: readable(text) if isinstance(text, str) else text)]
"""Text in which non-UTF-8 bytes of file names are escaped, as JSON requires."""
Count = Annotated[int, Field(ge=0, le=10**18)]


class Line(Spec):
    """Fields that every event may have: a running hash over the file."""

    before: str | None = Field(
        None,
        max_length=64,
        description="sha256 of the previous line in the file; optional for other writers",
    )


class Start(Line):
    """The stage has begun, or resumes after `resumed_from` steps. If FLOPs or GPU seconds limit the run, `total_steps` is the
    recipe's number, and `done` in each step tells the progress."""

    event: Literal["start"] = "start"
    total_steps: Count
    resumed_from: Count = 0
    numerics: dict[str, str] = {}


class Step(Line):
    """One optimiser step. `seconds` is its total time, of which `data_seconds` waiting for data; health is free-form numbers."""

    event: Literal["step"] = "step"
    step: Count
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    data_seconds: float
    done: float | None = Field(
        None,
        ge=0,
        le=1,
        description="finished share of the run, if FLOPs or GPU seconds limit it",
    )
    health: dict[str, float] = {}


class Eval(Line):
    """A validation after `step` optimiser steps."""

    event: Literal["eval"] = "eval"
    step: Count
    split: Literal["selection", "test"]
    metrics: dict[str, float | None]
    predictions_sha256: str | None = Field(
        None,
        max_length=64,
        description="digest of the predictions behind these metrics (`benchmarks.metrics.predictions.digest`)",
    )


class Ledger(Spec):
    """Resources that a stage reports to have used, in seconds and bytes, over all its attempts."""

    optimizer_steps: Count = 0
    samples: Count = 0
    scenes: Count = 0
    frames: Count = 0
    images: Count = 0
    points: Count = 0
    labels: Count = 0
    wall_seconds: NonNegativeFloat = 0.0
    cpu_seconds: NonNegativeFloat = 0.0
    peak_memory_bytes: Count = 0
    gpu_seconds: NonNegativeFloat = 0.0
    peak_gpu_memory_bytes: Count = 0
    sparse_flops: Count = Field(0, description="FLOPs of forward passes of sparse convolutions, validation included")
    flops: Count = Field(
        0, description="FLOPs of training: matrix products and convolutions, sparse and dense, forward and backward"
    )


class Usage(Line):
    """The ledger so far."""

    event: Literal["usage"] = "usage"
    ledger: Ledger


class Warn(Line):
    """Something a reader of the result should know."""

    event: Literal["warning"] = "warning"
    message: Text


class End(Line):
    """The last line. `stopped` is the reason for ending before the last step."""

    event: Literal["end"] = "end"
    status: Literal["ok", "refused", "failed", "cancelled"]
    stopped: Literal["soft_limit"] | None = None
    message: Text = ""
    metrics: dict[str, float | None] = {}
    notes: dict[str, str] = {}


Event = Annotated[Start | Step | Eval | Usage | Warn | End, Field(discriminator="event")]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
_BEFORE = re.compile(rb'"before":\s*"([0-9a-f]{64})"')
"""Searched for without parsing, which takes longer. Inside a text value the quotes would be escaped."""


class EventWriter:
    """Appends events; with `position` and `cut` a resumed stage drops events after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a+b")
        self._touched = 0.0
        self._before = self._last_hash()

    def write(self, event: Start | Step | Eval | Usage | Warn | End) -> None:
        """Append one line, with the hash of the previous line, and flush it."""
        payload = event.model_copy(update={"before": self._before}).model_dump(mode="json")
        line = json.dumps(payload, separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._before = line_sha256(line)

    def _last_hash(self) -> str | None:
        """Hash of the last line; None for an empty file. A partial line of a killed stage is cut off first."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - MAX_LINE_BYTES - 1))
        content = self._file.read()
        half = len(content) - (content.rfind(b"\n") + 1)
        if half:
            self._file.truncate(size - half)
            content = content[: len(content) - half]
        last = content[content.rfind(b"\n", 0, max(0, len(content) - 1)) + 1 :]
        return line_sha256(last) if last else None

    def alive(self) -> None:
        """Touch the file as a sign of life, for work that takes longer than a step and writes no events."""
        now = time.monotonic()
        if now - self._touched > ALIVE_SECONDS:
            self._touched = now
            with contextlib.suppress(OSError):
                os.utime(self._file.fileno())

    def position(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def cut(self, position: int) -> None:
        """Drop everything after `position`."""
        position = min(position, self._file.seek(0, 2))
        self._file.truncate(position)
        self._file.seek(position)
        self._before = self._last_hash()


def read_events(path: Path) -> Iterator[Event]:
    """Yield the valid events of a file; lines that are too long or invalid are skipped, and so is a file above MAX_FILE_BYTES."""
    with contextlib.suppress(OSError), _open_events(path) as file:
        for line in iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""):
            event = parse_event(line)
            if event is not None:
                yield event


def _open_events(path: Path) -> BufferedReader | BufferedRandom:
    """Open a file of events to read. Raises OSError for one that is unreadable, or larger than MAX_FILE_BYTES."""
    file = open_plain(path, os.O_RDONLY)
    if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
        file.close()
        raise OSError(errno.EFBIG, f"larger than {MAX_FILE_BYTES >> 20} MiB", str(path))
    return file


def line_sha256(line: bytes) -> str:
    """The hash that the next line carries. `line` includes its line break."""
    return hashlib.sha256(line).hexdigest()


def broken_line(path: Path) -> int | None:
    """The number, from 1, of the first event that does not continue the previous line; None if all do, or have no hash.

    Raises OSError for a file that is unreadable, or larger than MAX_FILE_BYTES.
    """
    before: str | None = None
    with _open_events(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            carried = _BEFORE.search(line)
            if carried is not None and carried[1].decode() != before:
                return number
            before = line_sha256(line)
    return None


def parse_event(line: bytes) -> Any:
    """Parse one event; None for an invalid line."""
    if len(line) > MAX_LINE_BYTES or not line.endswith(b"\n"):
        return None
    try:
        return _ADAPTER.validate_json(line)
    except (ValidationError, RecursionError):
        return None


def drop_end(path: Path) -> None:
    """Cut the file before its first end event, so that a new attempt is not judged by the end of an earlier one."""
    position = 0
    with contextlib.suppress(FileNotFoundError), open_plain(path, os.O_RDWR) as file:
        for line in iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""):
            if isinstance(parse_event(line), End):
                file.truncate(position)
                return
            position = file.tell()
