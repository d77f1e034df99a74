"""Building with the classic builder: its log, errors and time limit, with given answers of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from urllib3.exceptions import ReadTimeoutError

import docker
from pretrain_bench.harness.executors.image_classic import build_classic, build_context
from pretrain_bench.harness.executors.image_source import BuildFailed, ImageSource

SOURCE = ImageSource("bench-test:latest", {"Dockerfile": b"FROM x\n", "a/b": b"1"}, {"A": "1"}, {"label": "2"})
LINES: list[dict[str, Any]] = [
    {"stream": "Step 1/2 : FROM x\n"},
    {"stream": " ---> 12\n"},
    {"aux": {}},
    {"stream": "Step 2/2 : RUN y\n"},
]


class Api:
    """Replaces the SDK's low-level interface; an exception among the parts is raised."""

    def __init__(self, *parts: dict[str, Any] | Exception) -> None:
        self.parts = parts
        self.options: dict[str, Any] = {}

    def build(self, **options: Any) -> Iterator[dict[str, Any]]:
        self.options = options
        return self.stream()

    def stream(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


def build(api: Api, seconds: float = 60.0) -> tuple[str, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    client: Any = SimpleNamespace(api=api)
    return "".join(build_classic(client, SOURCE, seconds, lambda *step: steps.append(step))), steps


def test_the_log_and_the_steps_come_from_the_stream() -> None:
    api = Api(*LINES)
    text, steps = build(api)
    assert text == "Step 1/2 : FROM x\n ---> 12\nStep 2/2 : RUN y\n" and steps == [(1, 2), (2, 2)]
    assert api.options["tag"] == SOURCE.tag and api.options["buildargs"] == {"A": "1"}
    assert api.options["labels"] == {"label": "2"} and api.options["pull"] is False
    assert api.options["fileobj"].getvalue() == build_context(dict(reversed(SOURCE.files.items()))).getvalue()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({"error": "the command returned a non-zero code: 1"}, "the command returned a non-zero code: 1"),
        (docker.errors.APIError("bad\nmore"), "^bad$"),
        (ConnectionError("gone"), "gone"),
        (ReadTimeoutError(None, "", "read timed out"), "the build took longer than 60 s"),  # type: ignore[arg-type]
    ],
)
def test_a_build_that_fails_says_why(end: dict[str, Any] | Exception, message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        build(Api(*LINES, end))


def test_a_build_stops_at_its_time_limit() -> None:
    with pytest.raises(BuildFailed, match="the build took longer than 0 s"):
        build(Api(*LINES), seconds=0.0)
