"""Format problems of the data as lines of text, and merge lines of one kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

LINES_OF_ONE_KIND = 3


def by_kind(problems: Iterable[str]) -> list[list[str]]:
    """Group lines that differ only in numbers and paths, the largest group first."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(re.sub(r"\S*/\S*|\d+", "#", problem), []).append(problem)
    return sorted(kinds.values(), key=len, reverse=True)


def summarise(problems: Iterable[str]) -> list[str]:
    """All lines; a kind with more than LINES_OF_ONE_KIND lines is cut to its first line and a count of the others."""
    shown = []
    for lines in by_kind(problems):
        more = f" (and {len(lines) - 1} more like this)"
        shown += lines if len(lines) <= LINES_OF_ONE_KIND else [lines[0] + more]
    return shown


def why_none(what: str, messages: list[str]) -> str:
    """Why all frames or scenes failed, from one message each: the count and first message of each kind of problem."""
    reasons = [f"{len(lines)} of {len(messages)} {what}: {lines[0]}" for lines in by_kind(messages)]
    return "; ".join(reasons[:LINES_OF_ONE_KIND]) + ("; ..." if len(reasons) > LINES_OF_ONE_KIND else "")
