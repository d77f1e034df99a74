"""The import rules of the four floors, and the modules that the command line may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ROOMS = ("benchmarks", "harness", "methods", "reports")
API, CLI = "pretrain_bench/api", "harness/cli"
ALLOWED = {
    "benchmarks": {"benchmarks"},
    "harness": {"benchmarks", "harness"},
    "methods": {"benchmarks", "methods", "harness.contract"},
    "reports": {"reports", "benchmarks", "harness.contract", "harness.store"},
    API: {"api", "benchmarks", "harness", "methods", "reports"},
    CLI: {"api", "harness.cli", "benchmarks.support.errors", "benchmarks.metrics.names"},
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
    folders = (*(REPOSITORY / room for room in ROOMS), REPOSITORY / API)
    return [p for folder in folders for p in sorted(folder.rglob("*.py"))]


def floor_of(path: Path) -> str:
    relative = path.relative_to(REPOSITORY).as_posix()
    return next((floor for floor in (API, CLI) if relative.startswith(f"{floor}/")), relative.split("/")[0])


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or package of this project."""
    path = REPOSITORY.joinpath(*name.split("."))
    return name.startswith("pretrain_bench.") and (path.is_dir() or path.with_suffix(".py").is_file())


def imported(path: Path, for_type_checkers: bool = True) -> set[str]:
    """Modules of this project that a file imports, without the prefix `pretrain_bench.`; the root is `pretrain_bench`."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which this rule cannot follow"
            names.add(node.module or "")
            # `from pretrain_bench.harness import cli` imports a module too.
            names |= {f"{node.module}.{a.name}" for a in node.names if is_module(f"{node.module}.{a.name}")}
        is_check = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if for_type_checkers or not is_check:
            waiting += ast.iter_child_nodes(node)
    bare = {n for n in names if n.split(".")[0] in ROOMS}
    assert not bare, f"{path} imports {bare} without pretrain_bench"
    return {n.removeprefix("pretrain_bench.") for n in names if n.split(".")[0] == "pretrain_bench"}


def is_allowed(name: str, floor: str) -> bool:
    """Whether a floor may import a module; packages that contain an allowed module may be named on the path to it."""
    return any(name == a or name.startswith(f"{a}.") or a.startswith(f"{name}.") for a in ALLOWED[floor])


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_imports_go_downwards_only(path: Path) -> None:
    floor = floor_of(path)
    # The command line may import any type for annotations; it calls the API through lazily loaded names of the root package.
    names = imported(path, for_type_checkers=floor != CLI) - ({"pretrain_bench"} if floor == CLI else set())
    for name in names:
        assert is_allowed(name, floor), f"{path} imports {name}"
        assert floor == CLI or not name.startswith("harness.cli"), f"{path} imports the command line"


@pytest.mark.parametrize(
    "line",
    [
        "from pretrain_bench.harness import cli",
        "from pretrain_bench.methods.ours import points",
        "from pretrain_bench import reports",
        "import pretrain_bench.api.running",
    ],
)
def test_a_planted_breach_is_caught(line: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(f"{line}\n")
    allowed = {
        name for name in imported(path) if any(name == a or name.startswith(f"{a}.") for a in ALLOWED["harness"])
    }
    assert imported(path) - allowed or any(name.startswith("harness.cli") for name in imported(path))
    path.write_text("from ..cli import app\n")
    with pytest.raises(AssertionError, match="imports relatively"):
        imported(path)


def test_the_rule_would_catch_a_breach() -> None:
    assert not any("methods".startswith(a) for a in ALLOWED["harness"])
    assert "harness.store.store" in imported(REPOSITORY / "reports/analysis/frame.py")
    assert {"pretrain_bench", "api.display"} <= imported(REPOSITORY / "harness/cli/report.py")
    assert "api.status" not in imported(REPOSITORY / "harness/cli/status.py", for_type_checkers=False)
    assert not any("api" in allowed for floor, allowed in ALLOWED.items() if floor not in (API, CLI))


def test_the_root_package_executes_no_import_of_ours() -> None:
    assert imported(REPOSITORY / "pretrain_bench/__init__.py", for_type_checkers=False) == set()
    assert len(imported(REPOSITORY / "pretrain_bench/__init__.py")) > 10
    code = (
        f"import pretrain_bench, sys; print([m for m in {(*HEAVY, 'pydantic', 'numpy', 'rich')!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]", done.stderr


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
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} is not a package"


def test_nothing_imports_torchvision() -> None:
    for path in modules():
        assert "torchvision" not in {
            n.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for n in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
        }, path
