"""Problems of the data as lines of text, and how many lines of one kind are said as one."""

from __future__ import annotations

import re
from collections.abc import Iterable

LINES_OF_ONE_KIND = 3


def by_kind(problems: Iterable[str]) -> dict[str, list[str]]:
    """The lines that differ in their numbers only (of files, lines and values) together, the most frequent kind first."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(re.sub(r"\d+", "#", problem), []).append(problem)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def summarise(problems: Iterable[str]) -> list[str]:
    """Each line, but of a kind with more than LINES_OF_ONE_KIND lines the first, with their number."""
    shown = []
    for lines in by_kind(problems).values():
        more = f" (and {len(lines) - 1} more like this)"
        shown += lines if len(lines) <= LINES_OF_ONE_KIND else [lines[0] + more]
    return shown


def why_none(what: str, total: int, problems: Iterable[str]) -> str:
    """Why none of `total` frames or scenes can be used: each kind of reason, how many it stopped, and the first of them."""
    reasons = [f"{len(lines)} of {total} {what}: {lines[0]}" for lines in by_kind(problems).values()]
    return "; ".join(reasons[:LINES_OF_ONE_KIND]) + ("; ..." if len(reasons) > LINES_OF_ONE_KIND else "")
