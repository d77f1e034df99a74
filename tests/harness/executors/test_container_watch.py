"""What the executor makes of an engine's answers, without an engine; `tests/hostile` runs stages in a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_bench.harness.executors.capped_log import MAX_LOG_BYTES
from pretrain_bench.harness.executors.container_watch import ContainerWatch


class _Logs:
    """A container whose log is given; an exception in it is raised."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts

    def logs(self, **_: bool) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


@pytest.mark.parametrize(
    ("parts", "note"),
    [
        ((b"one\n", b"two\n"), ""),
        ((b"one\n", b"Error grabbing logs: no such file or directory\n"), "the engine lost the rest of the log"),
        ((b"one\n", ConnectionError("gone")), "the engine lost the rest of the log"),
        ((b"one\n", b"x" * MAX_LOG_BYTES, ConnectionError("gone")), "the log is longer"),
    ],
)
def test_a_log_that_breaks_off_says_so(parts: tuple[bytes | Exception, ...], note: str, tmp_path: Path) -> None:
    container = _Logs(*parts)
    watch = SimpleNamespace(log=tmp_path / "log", has_ended=threading.Event(), log_parts=container.logs)
    ContainerWatch._stream_log(watch)  # type: ignore[arg-type]
    text = (tmp_path / "log").read_text()
    assert text.startswith("one\n") and text.count("what follows was not kept") == bool(note) and note in text
