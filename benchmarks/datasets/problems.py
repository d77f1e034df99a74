"""Problems of the data as lines of text, and many lines of one kind as one."""

from __future__ import annotations

import re
from collections.abc import Iterable

LINES_OF_ONE_KIND = 3


def by_kind(problems: Iterable[str]) -> list[list[str]]:
    """The lines that differ only in numbers and paths together, the most frequent kind first."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(re.sub(r"\S*/\S*|\d+", "#", problem), []).append(problem)
    return sorted(kinds.values(), key=len, reverse=True)


def summarise(problems: Iterable[str]) -> list[str]:
    """Each line, but of a kind with more than LINES_OF_ONE_KIND lines the first, with the number of the others."""
    shown = []
    for lines in by_kind(problems):
        more = f" (and {len(lines) - 1} more like this)"
        shown += lines if len(lines) <= LINES_OF_ONE_KIND else [lines[0] + more]
    return shown


def why_none(what: str, messages: list[str]) -> str:
    """Why none of the frames or scenes can be used, a message for each: how many each kind stopped, and its first."""
    reasons = [f"{len(lines)} of {len(messages)} {what}: {lines[0]}" for lines in by_kind(messages)]
    return "; ".join(reasons[:LINES_OF_ONE_KIND]) + ("; ..." if len(reasons) > LINES_OF_ONE_KIND else "")
