"""Closed standard streams, encodings that lack a character, and names that are not UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.api.display import default_display
from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.harness.contract.events import Start, Step
from tests.conftest import bench_command


def test_a_command_needs_neither_stderr_nor_utf8(s3dis_root: Path, tmp_path: Path) -> None:
    """stderr is closed, stdout is ASCII, and the cache's path and a file name are not UTF-8."""
    rooms, cache = tmp_path / "rooms", os.fsencode(tmp_path) + b"/B\xfc"
    shutil.copytree(s3dis_root, rooms)
    (rooms / os.fsdecode(b"B\xfcro.txt")).touch()
    command = bench_command("data", "prepare", "s3dis", "--root", str(rooms))
    environment = {**os.environb, b"BENCH_CACHE": cache, b"PYTHONIOENCODING": b"ascii"}
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], env=environment, stdout=subprocess.PIPE, timeout=100
    )
    assert done.returncode == 0 and done.stdout.startswith(os.fsencode(tmp_path) + rb"/B\udcfc/prepared/s3dis-")


class Gone:
    """A stream whose reader has closed it."""

    encoding, closed = "ascii", False

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("chosen", ["bars", "lines", ""])
@pytest.mark.parametrize("stream", [None, Gone()])
def test_progress_outlives_its_stream(
    stream: object, chosen: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("BENCH_PROGRESS", chosen)
    display = default_display()
    on_event = display.stage("a stage")
    on_event(Start(total_steps=2))
    on_event(Step(step=1, loss=0, learning_rate=0, gradient_norm=0, seconds=0, data_seconds=0))
    display.say("a line")
    display.stage_ended(on_event)
    display.say("another line")
    assert list(display.progress("items")(["a"])) == ["a"]
    monkeypatch.undo()
    assert capfd.readouterr().out == "", "and nothing goes to stdout instead"


def test_names_that_are_not_utf8_are_escaped_or_refused_by_name(s3dis_root: Path, tmp_path: Path) -> None:
    assert readable(os.fsdecode(b"B\xfcro")) == r"B\xfcro" and readable("Büro \ud800") == r"Büro \ud800"
    rooms = tmp_path / "rooms"
    shutil.copytree(s3dis_root, rooms)
    objects = sorted(rooms.glob("Area_1/*/Annotations"))[0]
    (objects / os.fsdecode(b"chair_\xfc.txt")).write_text("not a point\n")
    problems = pb.prepare_data("s3dis", rooms, display=pb.Silent()).manifest.problems
    assert any(r"chair_\xfc.txt" in problem for problem in problems)
    (rooms / "Area_1").rename(rooms / os.fsdecode(b"Area_1\xfc"))
    with pytest.raises(pb.WrongUse, match="is not UTF-8; rename its folder"):
        pb.prepare_data("s3dis", rooms, display=pb.Silent())


def test_a_folder_of_runs_that_is_not_utf8_is_refused_before_a_stage_starts(tmp_path: Path) -> None:
    from pretrain_bench.harness.store.store import Store

    with pytest.raises(pb.WrongUse, match="this path is not UTF-8"):
        Store(tmp_path / os.fsdecode(b"B\xfc")).check_writable()
