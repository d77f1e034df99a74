"""`pip install .` into a fresh environment, then commands next to the user's own folders and files with the same names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import NANO, REPOSITORY

ROOMS = ("benchmarks", "harness", "methods", "reports")
HIDDEN = ("pydantic", "yaml", "typer", "click", "rich", "tqdm", "scipy", "sklearn", "pandas", "seaborn", "matplotlib", "PIL",
          "plyfile", "psutil", "safetensors", "docker", "pynvml", "zstandard", "pytest", "hypothesis")  # fmt: skip
"""What the project needs besides torch and numpy."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, since setuptools would leave its build folder there and reuse stale files from it."""
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs", "smoke", "study")
    return Path(shutil.copytree(REPOSITORY, tmp_path_factory.mktemp("plain") / "source", symlinks=True, ignore=ignored))


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with a non-editable installation of the project."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    environment(folder, with_pip=True)
    install(folder / "bin/python", folder, str(source))
    return folder


def environment(folder: Path, with_pip: bool) -> None:
    """A virtual environment that sees the running one's dependencies through a path file. The running one's own `.pth` files,
    such as the one of an editable installation, are not followed."""
    venv.create(folder, with_pip=with_pip)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")


def install(python: Path, target: Path, *what: str) -> None:
    """Install with one interpreter's pip into another environment."""
    command = [python, "-m", "pip", "--quiet", "--python", target / "bin/python", "install", "--no-deps",
               "--force-reinstall", *what]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def clean(cache: Path, **more: str) -> dict[str, str]:
    """Environment variables of a user, without PYTHONPATH unless `more` sets it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"BENCH_CACHE": str(cache), **more}


def output(command: list[str | Path], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow  # in the fast set, an editable installation stands for it
def test_the_distribution_owns_one_import_name(installed: Path, cache: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; print(*m.files('pretrain-bench'), sep='\\n')"
    files = output([installed / "bin/python", "-c", code], tmp_path, clean(cache)).split()
    tops = {name.split("/")[0] for name in files if not name.startswith("../../../bin/")}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"pretrain_bench"}
    inside = {name.removeprefix("pretrain_bench/") for name in files}
    docker = {"base.Dockerfile", "method.Dockerfile", "task.Dockerfile", "images.lock", "requirements.lock", "torch-cuda.lock",
              "minkowski/build.sh"}  # fmt: skip
    assert {f"docker/{name}" for name in docker} | {"py.typed"} <= inside
    assert all(any(name.startswith(f"{room}/") for name in inside) for room in ROOMS)
    tracked = subprocess.run(["git", "ls-files", *ROOMS], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert not set(tracked.stdout.split()) - inside - {"reports/published/README.md"}, "data files are installed too"


def write_foreign_rooms(folder: Path) -> None:
    """Write the user's own packages and a plain folder, named as this project's rooms; each prints when imported."""
    for room in ROOMS:
        (folder / room).mkdir()
        if room != "methods":
            (folder / room / "__init__.py").write_text(f"print('the foreign {room}')\n")
    (folder / "methods/tool.py").write_text("print('the foreign tool')\n")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ours", "scratch"])
def test_folders_of_the_users_own_with_the_same_names(
    method: str, installed: Path, s3dis_root: Path, rgbd_root: Path, cache: Path, tmp_path: Path
) -> None:
    """PYTHONPATH=. puts them before the installed packages; the main workflow runs next to them, and they stay importable."""
    write_foreign_rooms(tmp_path)
    variables = clean(cache, PYTHONPATH=".")

    def bench(*arguments: str) -> str:
        text = output([installed / "bin/bench", *arguments], tmp_path, variables)
        assert "foreign" not in text
        return text

    data = ["--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={rgbd_root}"]
    bench("run", "--method", method, "--task", "s3dis-sem", *NANO, *data, "--threads", "1")
    (path,) = (tmp_path / "runs/finetune").glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["outcome"] == "ok" and "372 of 374" in path.read_text()
    assert record["provenance"]["git_commit"] is None and record["provenance"]["project_version"] == "0.2.0"
    assert "foreign" not in (path.parent / "log.txt").read_text()
    bench("report")
    assert (tmp_path / "report/index.html").is_file()
    names = [d["name"] for d in json.loads(bench("data", "ls", "--json"))]
    assert "synth-s3dis" in names and "--budget" in bench("run", "--help")
    python = installed / "bin/python"
    assert "torch" in output([python, "-m", "pretrain_bench", "doctor"], tmp_path, variables)
    where = output([python, "-c", "import pretrain_bench.methods as m; print(m.__file__)"], tmp_path, variables)
    assert where.startswith(str(installed)), "the installed copy is tested, not the checkout"
    mine = output([python, "-c", "import methods.tool, benchmarks, reports, harness"], tmp_path, variables)
    assert mine.count("the foreign") == 4, "nor does the installation hide what is the user's"


@pytest.mark.slow
def test_a_foreign_torch_is_not_imported(installed: Path, cache: Path, tmp_path: Path) -> None:
    """With `python -m`, Python puts the working folder first."""
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the foreign one')\n")
    variables, python, bench = clean(cache), installed / "bin/python", installed / "bin/bench"
    version = output([bench, "--version"], tmp_path, variables)
    for flags in ([], ["-P"], ["-I"]):
        assert output([python, *flags, "-m", "pretrain_bench", "--version"], tmp_path, variables) == version
    assert version == "bench 0.2.0\n"
    assert "torch" in output([python, "-m", "pretrain_bench", "doctor"], tmp_path, variables)


@pytest.mark.slow
def test_a_run_beside_a_foreign_torch(installed: Path, s3dis_root: Path, cache: Path, tmp_path: Path) -> None:
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the foreign one')\n")
    variables, python, bench = clean(cache), installed / "bin/python", installed / "bin/bench"
    data = ["--data", f"s3dis={s3dis_root}", "--threads", "1"]
    run = ["run", "--method", "scratch", "--task", "s3dis-sem", *NANO, *data]
    output([python, "-m", "pretrain_bench", *run], tmp_path, variables)
    output([bench, "report", "--no-page"], tmp_path, variables)
    assert len(list((tmp_path / "runs").glob("*/*/record.json"))) == 2 and (tmp_path / "report/table.md").is_file()


@pytest.mark.slow
def test_an_editable_installation_and_a_plain_checkout(source: Path, cache: Path, tmp_path: Path) -> None:
    """Both give the same import names as the installation, from the checkout's folders, also next to the user's own packages."""
    editable = tmp_path / "env"
    environment(editable, with_pip=False)
    install(Path(sys.executable), editable, "--editable", str(source))
    code = "import pretrain_bench.harness.cli.app as app, pretrain_bench.methods as m; print(app.__file__, m.__file__)"
    for python, variables in (
        (editable / "bin/python", clean(cache)),
        (Path(sys.executable), clean(cache, PYTHONPATH=str(source))),
    ):
        files = [Path(f).resolve() for f in output([python, "-c", code], tmp_path, variables).split()]
        assert files == [source / "harness/cli/app.py", source / "methods/__init__.py"]
    assert output([editable / "bin/bench", "--version"], tmp_path, clean(cache)) == "bench 0.2.0\n"
    (beside := tmp_path / "beside").mkdir()
    write_foreign_rooms(beside)
    for name in ("torch", "numpy"):
        (beside / f"{name}.py").write_text("raise SystemExit('the foreign one')\n")
    names = output([editable / "bin/bench", "data", "ls", "--json"], beside, clean(cache, PYTHONPATH="."))
    assert "synth-s3dis" in [d["name"] for d in json.loads(names)], "nor is anything foreign printed"
    python = editable / "bin/python"
    assert output([python, "-m", "pretrain_bench", "--version"], beside, clean(cache)) == "bench 0.2.0\n"
    mine = output(
        [python, "-c", "import methods.tool, benchmarks, reports, harness"], beside, clean(cache, PYTHONPATH=".")
    )
    assert mine.count("the foreign") == 4, "nor does the installation hide what is the user's"


@pytest.mark.slow
def test_make_verify_gpu_needs_torch_and_numpy_only(source: Path, cache: Path, tmp_path: Path) -> None:
    import numpy
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where the verification takes minutes")
    python, hiding = tmp_path / "python", tmp_path / "hiding.py"
    hiding.write_text(
        "import importlib.abc, runpy, sys\n"
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {HIDDEN!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is hidden', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "sys.path.insert(0, '.')\n"
        "module = sys.argv[2]\n"
        "del sys.argv[1:3]\n"
        "runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
    )
    packages = {str(Path(m.__file__ or "").parent.parent) for m in (torch, numpy)}
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{os.pathsep.join(packages)}" exec "{sys.executable}" -S "{hiding}" "$@"\n'
    )
    python.chmod(0o755)
    said = output(["make", "verify-gpu", f"GPU_PYTHON={python}"], source, clean(cache))
    assert "no CUDA device was at hand; gpu.json stays as it is" in said
    committed = (REPOSITORY / "docs/verification/gpu.json").read_text()
    assert (source / "docs/verification/gpu.json").read_text() == committed
    done = subprocess.run([python, "-m", "pydantic"], cwd=source, capture_output=True, text=True)
    assert done.returncode and "pydantic is hidden" in done.stderr, "the trial is a trial"


def test_this_interpreter_runs_the_checkout() -> None:
    """The other tests import this checkout."""
    import pretrain_bench

    assert Path(pretrain_bench.__file__).is_relative_to(REPOSITORY) and sys.version_info >= (3, 11)
