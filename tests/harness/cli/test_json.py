"""docs/json.md lists every command with --json, and the fields that these commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Bench
from tests.harness.cli.test_help import COMMANDS
from tests.harness.cli.test_matrix import SMOKE

ROWS = dict(
    re.findall(r"^\| (`bench [^|]+) \| ([^|]+ \| .+) \|$", (REPOSITORY / "docs/json.md").read_text(), flags=re.M)
)


def fields(row: str) -> set[str]:
    """The fields that a row names, without examples in brackets and what an option adds."""
    text = re.sub(r"\([^()]*\)", "", row.partition(" | ")[2]).partition("; with")[0].partition("...")[0]
    return set(re.findall(r"`(\w+)`", text))


def check(command: str, printed: str) -> Any:
    """Compare what a command printed with the row that starts with it."""
    (row,) = (row for name, row in ROWS.items() if name.startswith(f"`bench {command}`"))
    value = json.loads(printed)
    assert isinstance(value, list if row.startswith("list") else dict), command
    first = value[0] if isinstance(value, list) else value
    if "..." in row or "those of" in row or "the same" in row:
        assert fields(row) <= first.keys(), command
    else:
        assert fields(row) == first.keys(), command
    return value


def test_every_command_with_json_is_listed() -> None:
    listed = " ".join(ROWS)
    for name, command in COMMANDS.items():
        if any("--json" in option.opts for option in command.params):
            words = (
                "budgets " + name[-1]
                if name[-1] in ("ls", "show") and name[0] != "images" and len(name) > 1
                else " ".join(name)
            )
            assert re.search(rf"`bench {words}\b|`bench images ls`, `{name[-1]}`", listed), name


@pytest.mark.usefixtures("undrawn")
def test_commands_on_runs_print_the_listed_fields(bench: Bench, tmp_path: Path) -> None:
    runs = ("--runs", str(SMOKE), "--json")
    shown = check("show", bench("show", *runs).stdout)
    tuned = next(one["key"] for one in shown if one["cell"])
    assert {"key", "kind", "outcome", "cell", "metrics"} < shown[0].keys()
    check("show KEY", bench("show", tuned, *runs).stdout)
    assert all(isinstance(name, str) for name in json.loads(bench("show", tuned, "--scene", "list", *runs).stdout))
    check("status", bench("status", *runs).stdout)
    check("audit", bench("audit", *runs).stdout)
    check("power", bench("power", *runs).stdout)
    files = json.loads(bench("report", *runs, "--out", "report").stdout)
    named = {name.removeprefix("synthetic-") for name in files}
    assert fields(ROWS["`bench report`"]) <= named and any(re.fullmatch("groups/[^/]+/table", name) for name in named)
    (tmp_path / "empty").mkdir()
    removed = json.loads(bench("clean", "--dry-run", "--runs", str(tmp_path / "empty"), "--json").stdout)
    assert removed == {"dry_run": True, "removed": []} and fields(ROWS["`bench clean`"]) == removed.keys()
    packed = str(REPOSITORY / "docs/study/smoke.bundle.tar.zst")
    check("unpack", bench("unpack", packed, "--runs", "new", "--json").stdout)
    check("plan", bench("plan", "tiny", "method=scratch", "--runs", str(tmp_path / "empty"), "--json").stdout)


def test_commands_on_data_and_specs_print_the_listed_fields(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    prepared = check("data prepare", bench("data", "prepare", "s3dis", "--root", str(s3dis_root), "--json").stdout)
    check("data verify", bench("data", "verify", prepared["folder"], "--json").stdout)
    check("data subset", bench("data", "subset", prepared["folder"], "--out", "cut", "--scenes", "2", "--json").stdout)
    check("data info DIR", bench("data", "info", str(s3dis_root), "--json").stdout)
    check("data init", bench("data", "init", str(s3dis_root), "--json").stdout)
    check("data info NAME", bench("data", "info", "s3dis", "--json").stdout)
    for kind in ("budgets", "profiles", "tasks", "suites", "methods", "data"):
        listed = json.loads(bench(kind, "ls", "--json").stdout)
        assert {"name"} <= listed[0].keys()
    check("budgets show NAME", bench("budgets", "show", "smoke", "--json").stdout)
