"""Building images: advice after failures, refusals, and bit-identical stages inside and outside an image."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import docker
from pretrain_bench.harness.executors.image_build import hint
from pretrain_bench.harness.executors.image_contents import tag
from pretrain_bench.harness.store.provenance import git_state
from tests.conftest import NANO, REPOSITORY, Bench, run_records, unboxed
from tests.hostile.engines import BASE as TEST_BASE
from tests.hostile.engines import engine as engine


def test_known_failures_come_with_advice() -> None:
    assert "--base" in hint("pull access denied for x")
    assert "--wheels DIR" in hint("ERROR: No matching distribution found for torch")
    assert hint("something else") == "something else"


def test_a_bad_choice_is_refused_before_anything_is_built(bench: Bench, tmp_path: Path) -> None:
    assert "unknown image 'oures'" in bench("images", "build", "oures", code=2).stderr
    assert "--engine 'lxc': expected one of docker, podman" in bench("images", "ls", "--engine", "lxc", code=2).stderr
    (tmp_path / "w").mkdir()
    assert "no torch-*.whl in it" in bench("images", "build", "--wheels", "w", code=2).stderr
    refused = bench("run", "--method", "scratch", "--task", "s3dis-sem", "--executor", "lxc", code=2).stderr
    assert "'lxc' is not one of 'auto', 'bubblewrap', 'local', 'docker', 'podman'" in unboxed(refused)


def test_without_an_engine_the_command_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    for command in (
        ("images", "ls"),
        ("run", "--method", "scratch", "--task", "s3dis-sem", *NANO, "--executor", "docker"),
    ):
        error = bench(*command, code=3).stderr
        assert "no container engine answers" in error and "--executor bubblewrap or local" in error


@pytest.mark.docker
def test_a_stage_gives_the_same_bits_inside_and_outside(engine: Any, bench: Bench, tmp_path: Path) -> None:
    """Builds real images, and runs a whole cell through both executors."""
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "torch==2.13.0", "-d", str(wheels)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    chosen = ["ours", "task"]
    with contextlib.suppress(
        docker.errors.ImageNotFound
    ):  # from another commit with equal code; its label is checked below
        engine.images.remove(tag("ours"), force=True)
    built = json.loads(
        bench("images", "build", "base", *chosen, "--base", TEST_BASE, "--wheels", str(wheels), "--json").stdout
    )
    assert {b["image"]: b["outcome"] for b in built}.keys() == {"base", *chosen}
    assert all(b["outcome"] in ("ok", "unchanged") for b in built), built
    again = json.loads(
        bench("images", "build", "base", *chosen, "--base", TEST_BASE, "--wheels", str(wheels), "--json").stdout
    )
    assert {b["outcome"] for b in again} == {"unchanged"}, "nothing changed, so nothing is built"
    labels = engine.images.get(tag("ours")).labels
    assert labels["org.opencontainers.image.revision"][:40] == (git_state(REPOSITORY)[0] or "")
    states = {row["image"]: row["state"] for row in json.loads(bench("images", "ls", "--json").stdout)}
    assert all(states[name] == "ok" for name in ("base", *chosen))
    cell = ["run", "--method", "ours", "--task", "s3dis-sem", *NANO]
    for protocol in ("finetune", "linear"):  # the stages of a probe run in the task image too
        bench(*cell, "--protocol", protocol, "--runs", "inside", "--executor", "docker")
        bench(*cell, "--protocol", protocol, "--runs", "outside")
    inside, outside = (run_records(tmp_path / where) for where in ("inside", "outside"))
    assert [r["key"] for r in inside] == [r["key"] for r in outside], "a key does not contain the executor"
    assert {r["kind"] for r in inside} == {"pretrain", "features", "finetune"}
    for one, two in zip(inside, outside, strict=True):
        assert one["provenance"]["numerics"] == two["provenance"]["numerics"], "the same torch on the same machine"
        assert one["metrics"] == two["metrics"] and one["artifacts"].keys() == two["artifacts"].keys()
        for name in one["artifacts"]:
            paths = [
                tmp_path / where / one["kind"] / one["key"] / "artifacts" / name for where in ("inside", "outside")
            ]
            if name.endswith(".npz"):  # another Python version compresses the same arrays differently
                one_file, other_file = (np.load(path) for path in paths)
                assert one_file.files == other_file.files
                assert all(np.array_equal(one_file[array], other_file[array]) for array in one_file.files), name
            else:
                assert paths[0].read_bytes() == paths[1].read_bytes(), name
        assert one["executor"] == "docker" and one["image"].startswith("sha256:") and two["image"] is None
    own = REPOSITORY / "examples/byo-method"
    engine.images.build(path=str(own), tag="byo-method:latest", buildargs={"BASE": TEST_BASE}, rm=True, forcerm=True)
    bench("run", "--method", str(own), "--task", "s3dis-sem", *NANO, "--runs", "own", "--executor", "docker")
    assert {r["method"]: r["outcome"] for r in run_records(tmp_path / "own")} == {"he-normal": "ok"}
    stale = engine.images.get(tag("ours"))
    stale.tag(tag("csc"))
    try:
        error = bench("run", "--method", "csc", "--task", "s3dis-sem", *NANO, "--executor", "docker", code=3).stderr
        assert "changed since it was built; run: bench images build csc" in " ".join(error.split())
        bench(
            "run", "--method", "csc", "--task", "s3dis-sem", *NANO, "--executor", "docker", "--rebuild", "--runs", "new"
        )
        assert {r["outcome"] for r in run_records(tmp_path / "new")} == {"ok"}
    finally:
        engine.images.remove(tag("csc"), force=True)
