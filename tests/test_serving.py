"""`bench report --watch --serve`: serves the page over HTTP on this machine only."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pretrain_bench.api.serving import served
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench, bench_command
from tests.test_running_stages import key_of, lay_out, step


def unreadable() -> bytes:
    raise WrongUse("no such store")


def test_files_are_served_as_they_are_now_and_only_to_this_machine(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("one")
    (tmp_path.parent / "beside.txt").write_text("secret")
    answers = {"/running.json": lambda: page.read_bytes() * 2, "/broken.json": unreadable}
    with served(tmp_path, 0, answers) as address:
        assert address.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(address).read() == b"one"
        page.write_text("two")
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == b"two" and answer.headers["Cache-Control"] == "no-store"
        for method in ("GET", "HEAD"):
            foreign = urllib.request.Request(address, headers={"Host": "evil.example:80"}, method=method)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign)
            foreign = urllib.request.Request(address + "running.json", headers={"Host": "evil.example"}, method=method)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign)
        assert urllib.request.urlopen(address + "running.json").read() == b"twotwo", "made when it is asked for"
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            urllib.request.urlopen(address + "broken.json")
        assert b"no such store" in refused.value.read()
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
    store = Store(tmp_path / "runs")
    events = lay_out(store)
    events.write_text(step(10, 2.0) + step(20, 1.0)[:20])
    command = bench_command("report", "--watch", "--serve", "--runs", "runs")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split(": ")[0]
            assert line == f"{address}: 0 runs; Ctrl-C ends the watch\n"
            page = urllib.request.urlopen(address).read()
            assert b"<title>bench report</title>" in page and b'<section id="running"' in page and b"Plotly" in page
            live = address + "running.json"
            assert json.loads(urllib.request.urlopen(live).read())["stages"] == []
            with store.lock(key_of(events), print):
                shown = json.loads(urllib.request.urlopen(live).read())
            assert shown["stages"][0][1:] == ["running", "10"] and shown["figures"][0]["data"][0]["y"] == [2.0]
        finally:
            process.terminate()


def test_serve_needs_watch(bench: Bench) -> None:
    assert "--serve needs --watch" in bench("report", "--serve", code=2).stderr
