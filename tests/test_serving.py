"""`bench report --watch --serve`: serves the page over HTTP on this machine only."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pretrain_bench.api.serving import served
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from tests.conftest import Bench, bench_command


def test_files_are_served_as_they_are_now_and_only_to_this_machine(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("one")
    (tmp_path.parent / "beside.txt").write_text("secret")
    with served(tmp_path, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(address).read() == b"one"
        page.write_text("two")
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == b"two" and answer.headers["Cache-Control"] == "no-store"
        for method in ("GET", "HEAD"):
            foreign = urllib.request.Request(address, headers={"Host": "evil.example:80"}, method=method)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "%2e%2e/beside.txt")
        taken = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(EnvironmentCannot, match=f"port {taken} .*--port names another"), served(tmp_path, taken):
            pass
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", taken)):
        pass


@pytest.mark.slow
def test_a_watched_report_is_served(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    command = bench_command("report", "--watch", "--serve", "--runs", "runs")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split(": ")[0]
            assert line == f"{address}: 0 runs; Ctrl-C ends the watch\n"
            assert b"<title>bench report</title>" in urllib.request.urlopen(address).read()
        finally:
            process.terminate()


def test_serve_needs_watch(bench: Bench) -> None:
    assert "--serve needs --watch" in bench("report", "--serve", code=2).stderr
