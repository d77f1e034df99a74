"""Tables as the commands print them."""

from __future__ import annotations

import sys

import pytest

from pretrain_bench.harness.cli import console
from pretrain_bench.harness.cli.console import table

KEY = "844124aabf6efa1e2663"
WORDS = "a long reason of many words " * 12


def test_a_table_fits_its_width_and_cuts_nothing() -> None:
    lines = table(
        ("run", "stage", "why"), [(KEY, "scratch -> s3dis-sem at 100%", WORDS), ("short", "x" * 150, "-")]
    ).splitlines()
    assert max(map(len, lines)) <= console.WIDTH and set(lines[1]) == {"-"}
    assert lines[2].startswith(KEY) and "".join(lines).count("x") == 150
    assert " ".join(" ".join(line[line.rfind("  ") :] for line in lines[2:]).split()).count("reason") == 12
    assert "…" not in "".join(lines)


def test_keys_stay_whole_even_beside_what_does_not_fit() -> None:
    rows = [(KEY, *("y" * 60 for _ in range(5)))]
    text = table(("run", "a", "b", "c", "d", "e"), rows)
    assert KEY in text and text.count("y") == 300 and all(len(line) <= console.WIDTH for line in text.splitlines())


def test_cells_are_shown_as_they_are() -> None:
    text = table(("what", "value"), [("[bold]x[/bold]", ":smile: [red]"), ("a\x1b[31mb", 12), ("c", None)])
    assert "[bold]x[/bold]  :smile: [red]" in text and "a?[31mb" in text and "\x1b" not in text
    assert text.splitlines()[2:] == ["[bold]x[/bold]  :smile: [red]", "a?[31mb         12", "c               None"]


def test_only_a_terminal_gets_bold_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in table(("run",), [(KEY,)])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert table(("run",), [(KEY,)]).startswith("\x1b[1m")


def test_long_tables_have_one_line_a_row_and_are_not_laid_out_by_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_wrapped", lambda *_: pytest.fail("laid out by rich"))
    rows = [(KEY, f"line\x1b\n{number}", WORDS) for number in range(console.LONG + 1)]
    lines = table(("run", "name", "why"), rows).splitlines()
    assert len(lines) == len(rows) + 2 and set(lines[1]) == {"-"}
    assert lines[2] == f"{KEY}  line? 0    {WORDS.rstrip()}" and len({line.index("a long") for line in lines[2:]}) == 1
