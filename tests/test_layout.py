"""The import rules of the four floors, and what the command line may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ROOMS = ("benchmarks", "harness", "methods", "reports")
ALLOWED = {
    "benchmarks": {"benchmarks"},
    "harness": {"benchmarks", "harness"},
    "methods": {"benchmarks", "methods", "harness.contract"},
    "reports": {"reports", "benchmarks", "harness.contract", "harness.store"},
    "harness/cli": {"benchmarks", "harness", "reports"},
}
HEAVY = (
    "torch",
    "pandas",
    "matplotlib",
    "seaborn",
    "scipy",
    "statsmodels",
    "scikit_posthocs",
    "docker",
    "ray",
    "PIL",
    "psutil",
    "jinja2",
)


def modules() -> list[Path]:
    return [p for room in ROOMS for p in sorted((REPOSITORY / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    bare = {n for n in names if n.split(".")[0] in ROOMS}
    assert not bare, f"{path} imports {bare} without pretrain_bench"
    return {n.removeprefix("pretrain_bench.") for n in names if n.startswith("pretrain_bench.")}


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
    assert "harness.store.store" in imported(REPOSITORY / "reports/analysis/frame.py")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv=['bench','--help'];\n"
        "from pretrain_bench.harness.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == "[]", done.stderr


def test_the_import_name_is_one_and_its_rooms_are_the_top_level_folders() -> None:
    for room in (*ROOMS, "docker"):
        assert (REPOSITORY / "pretrain_bench" / room).resolve() == REPOSITORY / room
    for path in modules():
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"


def test_nothing_imports_torchvision() -> None:
    for path in modules():
        assert "torchvision" not in {
            n.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for n in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
        }, path
