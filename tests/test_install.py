"""`pip install .` into a fresh environment, then the commands from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import NANO, REPOSITORY


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the project installed, not editable.

    The dependencies are those of the running environment, seen through a path file: `.pth` files of its own, such as the
    one of an editable installation, are not followed.
    """
    folder = tmp_path_factory.mktemp("fresh") / "env"
    # A copy, because setuptools would leave its build folder in the checkout, and take stale files from it.
    source = folder.parent / "source"
    shutil.copytree(
        REPOSITORY,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs", "smoke"),
    )
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    packages = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    )
    (Path(packages.stdout.strip()) / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--force-reinstall",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_run_and_report_from_an_empty_folder(
    installed: Path, s3dis_root: Path, rgbd_root: Path, cache: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"BENCH_CACHE": str(cache)}

    def bench(*arguments: str) -> str:
        done = subprocess.run(
            [installed / "bin/bench", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [installed / "bin/python", "-c", "import pretrain_bench.methods; print(pretrain_bench.methods.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed)), "the installed copy is tested, not the checkout"
    data = ["--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={rgbd_root}"]
    bench("run", "--method", "ours", "--task", "s3dis-sem", *NANO, *data, "--threads", "1")
    assert "372 of 374" in (next((tmp_path / "runs/finetune").glob("*/record.json"))).read_text()
    bench("report")
    assert (tmp_path / "report/index.html").is_file()
    names = [d["name"] for d in json.loads(bench("data", "ls", "--json"))]
    assert "synth-s3dis" in names and "--budget" in bench("run", "--help")
    docker = Path(where.stdout.strip()).parent.parent / "docker"
    names = {p.name for p in docker.iterdir()}
    assert {"base.Dockerfile", "method.Dockerfile", "task.Dockerfile", "images.lock", "requirements.lock"} <= names
    assert (docker / "torch-cuda.lock").is_file() and (docker / "minkowski/build.sh").is_file()
    record = json.loads(next((tmp_path / "runs/finetune").glob("*/record.json")).read_text())
    assert record["provenance"]["git_commit"] is None and record["provenance"]["project_version"] == "0.1.0"


def test_this_interpreter_runs_the_checkout() -> None:
    """What the other tests test is this checkout."""
    import pretrain_bench

    assert Path(pretrain_bench.__file__).is_relative_to(REPOSITORY) and sys.version_info >= (3, 11)
