"""Building with buildx: the bake file, the command and its results, with a fake `docker` command as the engine's BuildKit."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import docker
from pretrain_bench.harness.executors import image_build
from pretrain_bench.harness.executors.image_bake import bake_file, can_bake
from pretrain_bench.harness.executors.image_build import Built
from pretrain_bench.harness.executors.image_contents import (
    BASE,
    INPUTS_LABEL,
    NAME_LABEL,
    PARENT_LABEL,
    BuildSettings,
    tag,
)
from pretrain_bench.harness.executors.image_source import ImageSource

# Records its arguments and environment, reads the bake file as buildx does, and stores the labels of the images it "builds".
FAKE_DOCKER = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path

home = Path({home!r})
mode = (home / "mode").read_text()
with (home / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({{"arguments": sys.argv[1:], "attest": os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")}}) + "\\n")
if sys.argv[1:3] == ["buildx", "inspect"]:
    if mode == "no buildx":
        sys.exit("docker: unknown command: docker buildx")
    driver = "docker-container" if mode == "other driver" else "docker"
    print(f"Name:   default\\nDriver: {{driver}}\\n\\nNodes:\\nName:   default\\nStatus: running")
    sys.exit(0)
options = sys.argv[3:]
plan = json.loads(Path(options[options.index("--file") + 1]).read_text())
target = plan["target"][options[-1]]
context = Path(target["context"])
files = {{p.relative_to(context).as_posix(): [oct(p.stat().st_mode & 0o777), p.stat().st_mtime] for p in context.rglob("*")}}
(home / "last.json").write_text(json.dumps({{"plan": plan, "files": files, "dockerfile": (context / "Dockerfile").read_text()}}))
err = lambda text: print(text, file=sys.stderr, flush=True)
err("#1 [internal] load build definition from Dockerfile")
err("#5 [1/2] FROM docker.io/pretrain-bench/base:latest")
err("#6 [2/2] COPY code /opt/code")
err("#6 DONE 0.1s")
if mode == "fails":
    err("#6 1.2 ERROR: No matching distribution found for torch")
    err("ERROR: target image: failed to solve: process did not complete successfully: exit code: 1")
    sys.exit(1)
if mode == "dies":
    sys.exit(7)
if mode == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (home / "child").write_text(str(child.pid))
    time.sleep(600)
if mode != "elsewhere":
    name = target["tags"][0].replace("/", "_")
    labels = {{k: v.replace("$${{", "${{") for k, v in target["labels"].items()}}
    (home / f"{{name}}.labels").write_text(json.dumps(labels))
"""


class Engine:
    """The fake engine: its folder, and a client that lists the images of the fake command."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.images = self
        self.set_mode("works")
        self.keep(tag(BASE), {"any": "base"})

    def version(self) -> dict[str, Any]:
        return {"Components": [{"Name": "Engine"}]}

    def set_mode(self, mode: str) -> None:
        (self.home / "mode").write_text(mode)
        can_bake.cache_clear()

    def keep(self, name: str, labels: dict[str, str]) -> None:
        (self.home / f"{name.replace('/', '_')}.labels").write_text(json.dumps(labels))

    def get(self, name: str) -> Any:
        path = self.home / f"{name.replace('/', '_')}.labels"
        if not path.is_file():
            raise docker.errors.ImageNotFound(name)
        return SimpleNamespace(labels=json.loads(path.read_text()), id=f"sha256:{name}")

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "calls.jsonl").read_text().splitlines()]

    def last(self) -> dict[str, Any]:
        return json.loads((self.home / "last.json").read_text())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    home = tmp_path / "engine"
    home.mkdir()
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(FAKE_DOCKER.format(python=sys.executable, home=str(home)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    yield Engine(home)
    can_bake.cache_clear()


def build(engine: Engine, logs: Path, image: str = "csc", **settings: Any) -> tuple[Built, list[tuple[str, int, int]]]:
    steps: list[tuple[str, int, int]] = []
    built = image_build.build(engine, image, BuildSettings(**settings), logs, lambda *step: steps.append(step))
    return built, steps


def test_an_image_is_built_from_a_bake_file(fake: Engine, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        built, steps = build(fake, tmp_path / "logs")
    finally:
        os.umask(before)
    assert (built.image, built.outcome, built.message, built.log) == ("csc", "ok", "", tmp_path / "logs/csc.log")
    assert steps == [("csc", 1, 2), ("csc", 2, 2)], "internal steps and repeated lines are not counted"
    assert "[2/2] COPY code" in built.log.read_text()  # type: ignore[union-attr]
    inspected, baked = fake.calls()
    assert inspected["arguments"] == ["buildx", "inspect", "default"]
    assert baked["arguments"] == [
        "buildx", "bake", "--builder", "default", "--file", "bake.json", "--progress", "plain", "image",
    ]  # fmt: skip
    assert baked["attest"] == "1"
    (target,) = fake.last()["plan"]["target"].values()
    assert target["tags"] == ["pretrain-bench/csc:latest"] and target["args"] == {"BASE": "pretrain-bench/base:latest"}
    assert target["output"] == ["type=docker"] and target["pull"] is False
    assert target["labels"][NAME_LABEL] == "csc" and target["labels"][PARENT_LABEL] == f"sha256:{tag(BASE)}"
    files = fake.last()["files"]
    assert "code/pretrain_bench/methods/csc/partition.py" in files
    modes = {("0o644", 0.0), ("0o755", 0.0)}
    assert {tuple(v) for v in files.values()} == modes, "equal files give equal layers, which every user can read"
    assert files["code"] == ["0o755", 0.0] and files["Dockerfile"] == ["0o644", 0.0]
    again, steps = build(fake, tmp_path / "logs")
    assert again == Built("csc", "unchanged", 0.0, "", None) and not steps


def test_the_base_takes_its_arguments_literally(fake: Engine, tmp_path: Path) -> None:
    built, steps = build(fake, tmp_path, BASE, base="debian:12", torch_args="--index-url http://x/${HOME}/%{a}")
    assert built.outcome == "ok" and steps[-1][2] == 10, "FROM, RUN, COPY and WORKDIR of both stages"
    args = fake.last()["plan"]["target"]["image"]["args"]
    assert args["BASE"] == "debian:12" and args["TORCH_ARGS"] == "--index-url http://x/$${HOME}/%%{a}"
    assert "requirements.lock" in fake.last()["files"] and "FROM ${BASE}" in fake.last()["dockerfile"]
    source = ImageSource("t", {}, {"A": "$HOME"}, {INPUTS_LABEL: "x"})
    assert bake_file(source)["target"]["image"]["args"] == {"A": "$HOME"}


def test_a_failed_build_has_the_logs_last_lines_and_advice(fake: Engine, tmp_path: Path) -> None:
    fake.set_mode("fails")
    built, _ = build(fake, tmp_path)
    assert built.outcome == "build_failed" and built.log == tmp_path / "csc.log"
    assert "exit code: 1" in built.message and "hint: pip finds no such package" in built.message
    assert built.message.count("#6 [2/2]") == 1 and "exit code: 1" in built.log.read_text()
    fake.set_mode("dies")
    assert "ended with exit code 7" in build(fake, tmp_path)[0].message
    fake.set_mode("elsewhere")
    assert "is not in the engine" in build(fake, tmp_path)[0].message
    fake.keep(tag("csc"), {INPUTS_LABEL: "of another build"})
    assert "names a different image" in build(fake, tmp_path)[0].message


def test_a_build_is_ended_at_its_time_limit(fake: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_build, "BUILD_SECONDS", 3.0)
    fake.set_mode("hangs")
    began = time.monotonic()
    built, _ = build(fake, tmp_path)
    assert built.outcome == "build_failed" and "the build took longer than 3 s" in built.message
    assert time.monotonic() - began < 60
    child = Path("/proc") / (fake.home / "child").read_text()
    assert not child.exists() or "State:\tZ" in (child / "status").read_text(), "its processes are ended too"


@pytest.mark.parametrize(("mode", "expected"), [("works", True), ("no buildx", False), ("other driver", False)])
def test_only_the_buildkit_of_the_engine_itself_is_used(fake: Engine, mode: str, expected: bool) -> None:
    """Other builders cannot see the base image, which exists only in the engine."""
    fake.set_mode(mode)
    assert can_bake() is expected and can_bake() is expected
    assert len(fake.calls()) == 1, "found out once"


def test_without_a_docker_command_the_classic_builder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    can_bake.cache_clear()
    assert not can_bake()
    can_bake.cache_clear()
