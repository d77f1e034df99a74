"""The code and commands of the tutorials run as printed, with the smallest budget, and their numbers are current."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import NANO, REPOSITORY, Bench, run_records

TUTORIALS = REPOSITORY / "docs/tutorials"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a tutorial in one language, in order."""
    text = (TUTORIALS / f"{page}.md").read_text()
    return [
        code for name, code in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.S | re.M) if name == language
    ]


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(blocks(page, "sh")).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("bench ")]


@pytest.mark.slow
def test_a_first_result_becomes_a_bundle_that_a_reviewer_can_check(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("first-result", "python")
    shown = 'budget="smoke"'
    assert code.count(shown) == 1
    names: dict = {}
    exec(compile(code.replace(shown, f"budget={NANO[1]!r}, profile={NANO[3]!r}"), "first-result.md", "exec"), names)
    assert len(names["runs"]) == 2 and (tmp_path / "report/index.html").is_file()
    key = next(r["key"] for r in run_records(tmp_path / "runs") if r["kind"] == "finetune")
    shown_commands = [
        c for c in commands("first-result") if c[0] in ("report", "show", "doctor") and "--scene" not in c
    ]
    assert len(shown_commands) == 4
    for command in shown_commands:
        bench(*[key if word == "KEY" else word for word in command])
    # The later commands of this tutorial start runs and reruns, which other tests cover.
    reviewed = commands("review-a-bundle")
    assert [c[0] for c in reviewed] == ["audit", "audit", "audit", "show", "report", "report"]
    for command in reviewed:
        words = [str(REPOSITORY / word) if word.startswith("docs/") else word for word in command]
        bench(*words, code=4 if "--strict" in command else 0)
    bench("audit", "out.tar.zst")


@pytest.mark.slow
def test_the_hours_of_the_tutorial_on_real_data_are_those_of_the_plan(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (plan,) = [c for c in commands("real-data") if c[0] == "plan"]
    printed = bench(*plan).stdout
    (block,) = blocks("real-data", "")
    for line in block.splitlines():
        assert line in printed, line
