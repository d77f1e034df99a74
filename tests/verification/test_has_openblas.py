"""`make perf-minkowski` and `make verify-minkowski` report a missing OpenBLAS before they download anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.verification.has_openblas import problem


def compiler(folder: Path, code: int) -> str:
    """A PATH with a C++ compiler that exits with `code`."""
    program = folder / "c++"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", compiler(tmp_path, 0))
    assert problem() is None
    monkeypatch.setenv("PATH", compiler(tmp_path, 1))
    assert "libopenblas-dev" in (problem() or "")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "no C++ compiler" in (problem() or "")


@pytest.mark.slow
def test_nothing_is_made_or_downloaded_without_it(tmp_path: Path) -> None:
    target = tmp_path / "minkowski"
    variables = {"PATH": compiler(tmp_path, 1), "PYTHON": sys.executable, "MINKOWSKI_VENV": str(target)}
    script = REPOSITORY / "tests/verification/minkowski.sh"
    done = subprocess.run(
        ["sh", str(script)], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "nothing was downloaded" in done.stderr and not target.exists()


@pytest.mark.parametrize("target", ["perf-minkowski", "verify-minkowski"])
def test_make_does_not_set_up_without_it(target: str, tmp_path: Path) -> None:
    variables = {"VENV": tmp_path / "venv", "MINKOWSKI_VENV": tmp_path / "minkowski", "PYTHON": sys.executable}
    done = subprocess.run(
        ["make", target, *(f"{name}={value}" for name, value in variables.items())],
        cwd=REPOSITORY, env={**os.environ, "PATH": compiler(tmp_path, 1), "PIP_NO_INDEX": "1"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0 and "nothing was downloaded" in done.stderr
    assert not (tmp_path / "venv").exists() and not (tmp_path / "minkowski").exists()
