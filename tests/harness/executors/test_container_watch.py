"""How the executor interprets an engine's answers, without an engine; `tests/hostile` runs stages in a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import APIError

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors import docker
from pretrain_bench.harness.executors.base import Allocation, StageLaunch, Stop
from pretrain_bench.harness.executors.capped_log import MAX_LOG_BYTES
from pretrain_bench.harness.executors.container_watch import ContainerWatch
from pretrain_bench.harness.executors.docker import DockerExecutor
from pretrain_bench.harness.executors.podman import PodmanWatch

BUDGET = BudgetHalf(currency="optimizer_steps", optimizer_steps=1)


class _Logs:
    """A container with a given log; an exception among its parts is raised."""

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


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ("400 Client Error: Bad Request (no command specified)", "no ENTRYPOINT"),
        ('OCI runtime create failed: exec: "run": executable file not found in $PATH: unknown', "it lacks the program"),
        ("exec /run: exec format error", "cannot run here"),
        ("Cannot connect to the Docker daemon", None),
    ],
)
def test_an_image_that_cannot_start_is_its_own_fault(
    error: str, fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage counts as crashed, with the fault in its log, not as an infrastructure error."""
    executor = object.__new__(DockerExecutor)

    class Containers:
        def create(self, *_: object, **__: object) -> None:
            raise APIError(error)

    executor.client = SimpleNamespace(containers=Containers())  # type: ignore[assignment]
    executor.own, executor.limits_disk = {"mine": "mine:1"}, False
    monkeypatch.setattr(docker, "remove_orphans", lambda *_: None)
    monkeypatch.setattr(docker, "chown_output", lambda *_: None)
    monkeypatch.setattr(DockerExecutor, "_settings", lambda *_: {})
    (tmp_path / "root/out").mkdir(parents=True)
    spec = SimpleNamespace(kind="pretrain", method="mine", key="0" * 20)
    launch = StageLaunch(tmp_path / "root", spec, BUDGET, tmp_path / "log", lambda _: None, Allocation(Stop()))  # type: ignore[arg-type]
    if fault is None:
        with pytest.raises(EnvironmentCannot, match="the engine cannot run mine:1"):
            executor.run(launch)
        return
    assert executor.run(launch).returncode == docker.CANNOT_START
    assert fault in (tmp_path / "log").read_text()


def test_what_podman_does_not_print_while_following_is_read_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the container has ended, from the place where following stopped."""
    (tmp_path / "podman").write_text(
        "#!/bin/sh\ncase \"$*\" in *--follow*) printf 'one\\ntw';; *) printf 'one\\ntwo\\nthree\\n';; esac\n"
    )
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    watch = object.__new__(PodmanWatch)
    watch.container, watch.has_ended, watch.log = SimpleNamespace(id="c0"), threading.Event(), tmp_path / "log.txt"
    threading.Timer(0.2, watch.has_ended.set).start()
    watch._stream_log()
    assert watch.log.read_text() == "one\ntwo\nthree\n"
