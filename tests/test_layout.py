"""The import rules of the four floors, and what the command line may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("benchmarks", "harness", "methods", "reports")
ALLOWED = {
    "benchmarks": {"benchmarks"},
    "harness": {"benchmarks", "harness"},
    "methods": {"benchmarks", "methods", "harness.contract"},
    "reports": {"reports", "benchmarks", "harness.contract", "harness.store"},
    "harness/cli": {"benchmarks", "harness", "reports"},
}
HEAVY = ("torch", "pandas", "matplotlib", "seaborn", "scipy", "docker", "ray", "PIL", "psutil", "jinja2")


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((REPOSITORY / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {n for n in names if n.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_imports_go_downwards_only(path: Path) -> None:
    relative = path.relative_to(REPOSITORY)
    floor = "harness/cli" if relative.parts[:2] == ("harness", "cli") else relative.parts[0]
    for name in imported(path):
        assert any(name == a or name.startswith(f"{a}.") for a in ALLOWED[floor]), f"{relative} imports {name}"
        if floor != "harness/cli":
            assert not name.startswith("harness.cli"), f"{relative} imports the command line"


def test_the_rule_would_catch_a_breach() -> None:
    assert not any("methods".startswith(a) for a in ALLOWED["harness"])
    assert "harness.store" in imported(REPOSITORY / "reports/frame.py")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv=['bench','--help'];\n"
        "from harness.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == "[]", done.stderr


def test_every_package_is_listed_for_installation() -> None:
    import tomllib

    listed = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {".".join(p.parent.relative_to(REPOSITORY).parts) for p in modules() if p.name == "__init__.py"}
    assert listed == there


def test_nothing_imports_torchvision() -> None:
    for path in modules():
        assert "torchvision" not in {
            n.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for n in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
        }, path
