"""The banned phrases of `make lint` (tests/style.py) are found, and plain English passes."""

from __future__ import annotations

import pytest

from tests.style import banned, violations


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        ("A run\nthat goes on", 2, "goes on"),
        ("# one of so\n# many", 1, "so # many"),
        ('"a loss that is no "\n"number"', 1, 'is no " "number'),
        ("Nobody knows", 1, "Nobody"),
        ("## What full size costs", 1, "## What"),
        ("it ended well", 1, "ended well"),
    ],
)
def test_a_banned_phrase_is_found_with_its_line(text: str, line: int, phrase: str) -> None:
    assert (line, phrase) in [(at, words) for at, words, _ in violations(text, banned())]


@pytest.mark.parametrize(
    "text", ["there is no run", "it is no longer fresh", "also many", "is not one", "# What counts"]
)
def test_plain_english_passes(text: str) -> None:
    assert not list(violations(text, banned()))
