"""A user's own method: refused if it cannot run, and the example from its folder to a record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.api import methods
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.executors import image_state
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
from tests.conftest import REPOSITORY, Bench
from tests.hostile.engines import BASE
from tests.hostile.engines import engine as engine

EXAMPLE = REPOSITORY / "examples/byo-method"


def test_an_own_method_is_known_by_its_folder(tmp_path: Path) -> None:
    method = find(Method, str(EXAMPLE))
    assert method.name == "he-normal" and method.image == "byo-method:latest" and method.settings == {"gain": 1.0}
    copy = Path(shutil.copytree(EXAMPLE, tmp_path / "copy"))
    assert find(Method, str(copy)).code_sha256 == method.code_sha256
    (copy / "runs").mkdir()
    assert find(Method, str(copy)).code_sha256 == method.code_sha256, "what lies beside the method file is not its code"
    (copy / "method.yaml").write_text((EXAMPLE / "method.yaml").read_text().replace("gain: 1.0", "gain: 2.0"))
    assert find(Method, str(copy)).code_sha256 != method.code_sha256
    with pytest.raises(WrongUse, match="give the folder of your method"):
        find(Method, str(copy / "method.yaml"))


def test_a_folder_beside_the_command_does_not_hide_a_method_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "csc")
    monkeypatch.chdir(tmp_path)
    assert find(Method, "csc").image is None and find(Method, "./csc").image == "byo-method:latest"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("image: byo-method:latest", "", "stage 'init' has no init.py beside it; .* or names the container image"),
        ("name: he-normal", "name: csc", "'csc' is a method that ships; choose another name"),
        ("group: baseline", "group: mine", "group"),
    ],
)
def test_a_bad_method_file_is_explained(old: str, new: str, said: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "copy"))
    text = (folder / "method.yaml").read_text()
    assert old in text
    (folder / "method.yaml").write_text(text.replace(old, new))
    with pytest.raises(WrongUse, match=said):
        find(Method, str(folder))


def test_it_runs_within_caps_only(bench: Bench, tmp_path: Path) -> None:
    own = ("run", "--method", str(EXAMPLE), "--task", "s3dis-sem", "--executor", "docker", "--runs", "runs")
    said = bench(*own, "--budget", "paper", code=2).stderr
    assert "'he-normal' is a container of your own and runs within caps only, but budget 'paper' has no" in said
    assert (
        "pretrain.wall_seconds, pretrain.memory_mib, pretrain.disk_mib; give --budget a file that `extends: paper`"
        in said
    )
    (tmp_path / "capped.yaml").write_text(
        "extends: paper\nname: capped\npretrain: {wall_seconds: 9, memory_mib: 600, disk_mib: 9}\n"
    )
    suite = Suite(
        name="own", version=1, methods=(str(EXAMPLE),), tasks=("s3dis-sem",), budget=str(tmp_path / "capped.yaml")
    )
    choice = RunOverrides([], [], 1, "torch", "cpu", "docker", None)
    assert "he-normal" in str(resolve_suite(suite, [], choice).methods)
    with pytest.raises(WrongUse, match="runs within caps only, but budget 'paper'"):
        resolve_suite(suite.model_copy(update={"budget": "paper"}), [], choice)


def test_the_local_executor_refuses_it(bench: Bench) -> None:
    said = bench("run", "--method", str(EXAMPLE), "--task", "s3dis-sem", "--budget", "smoke", code=2).stderr
    assert "'he-normal' is a container of your own; run it with --executor docker or podman" in said


def test_a_check_uses_the_executor_that_a_run_would_use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def engine(name: str) -> SimpleNamespace:
        started.append(name)
        return SimpleNamespace(
            name=name, client=name, label_isolation="container", not_enforced=(), own={}, check_images=lambda _: None
        )

    monkeypatch.setattr(methods, "engine_executor", engine)
    monkeypatch.setattr(image_state, "with_image", lambda client, method: method.model_copy(update={"image": "id"}))
    mine, python = find(Method, str(EXAMPLE)), find(Method, str(REPOSITORY / "examples/own-method"))
    for name, used in (("auto", "docker"), ("docker", "docker"), ("podman", "podman")):
        method, executor = methods._with_executor(mine, name)
        assert (started.pop(), executor.name, method.image) == (used, used, "id")
        assert executor.pretrain.own == {"he-normal": "id"}  # type: ignore[attr-defined]
    with pytest.raises(WrongUse, match="run it with --executor docker or podman"):
        methods._with_executor(mine, "local")
    with pytest.raises(WrongUse, match="is Python code from outside this project, which containers do not include"):
        methods._with_executor(python, "podman")
    assert methods._with_executor(find(Method, "csc"), "podman")[1].name == "podman"
    assert methods._with_executor(python, "local")[1].name == "local"


def test_a_check_takes_its_executor_from_the_variable_and_bench_yaml(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(pb, "check_method", lambda *_, executor, **__: chosen.append(executor) or [])
    monkeypatch.setenv("BENCH_EXECUTOR", "podman")
    bench("methods", "check", "csc")
    monkeypatch.delenv("BENCH_EXECUTOR")
    (tmp_path / "bench.yaml").write_text("executor: docker\n")
    bench("methods", "check", "csc")
    bench("methods", "check", "csc", "--executor", "local")
    assert chosen == ["podman", "docker", "local"]


@pytest.mark.docker
def test_the_example_conforms(engine: Any, bench: Bench) -> None:
    engine.images.build(path=str(EXAMPLE), tag="byo-method:latest", buildargs={"BASE": BASE}, rm=True, forcerm=True)
    verdicts = json.loads(bench("methods", "check", str(EXAMPLE), "--executor", "docker", "--json").stdout)
    assert [v["check"] for v in verdicts if v["verdict"] == "failed"] == [] and len(verdicts) == 9
    assert {v["check"] for v in verdicts if v["verdict"] == "ok"} >= {"run", "events", "budget", "repetition", "seed"}
    engine.images.remove("byo-method:latest", force=True)
    said = bench("methods", "check", str(EXAMPLE), "--executor", "docker", code=2).stderr
    assert "image byo-method:latest does not exist; build it first" in said
