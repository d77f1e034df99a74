"""Read the parts of a scene, such as recording and mesh, independently: an unreadable part is a problem, and the scene keeps
the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.support.errors import DataError


class SceneParts:
    """Collects the content of the parts of one scene, and the problems of omitted parts. With `strict` the first problem raises
    DataError."""

    def __init__(self, scene: str, strict: bool) -> None:
        self.scene, self.strict = scene, strict
        self.held: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._first: DataError | None = None

    def add(self, part: str, write: Callable[[], dict[str, Any]], undo: Callable[[], None] = lambda: None) -> None:
        """Add what `write` returns. If it raises DataError, call `undo` and record a problem, or re-raise with `strict`."""
        try:
            held = write()
        except DataError as error:
            if self.strict:
                raise
            undo()
            self._first = self._first or error
            self.problems.append(f"{self.scene}: its {part} is left out: {error}")
            return
        self.problems += held.pop("problems", [])
        self.held |= held

    def problem(self, text: str) -> None:
        """Record a problem of the data. Raises DataError with `strict`."""
        if self.strict:
            raise as_error(text)
        self.problems.append(text)

    def result(self, nothing: str) -> dict[str, Any]:
        """The combined content of the scene, with its problems. If no part could be read, raises the first part's DataError, or
        DataError(`nothing`)."""
        if not self.held:
            raise self._first or DataError(nothing)
        return {**self.held, "problems": self.problems}


def holding_depth(depth: NDArray[np.uint16], name: str) -> NDArray[np.uint16]:
    """Return the depth image (H, W) unchanged. Raises DataError, naming `name`, if all pixels are 0 or 65535 (no depth)."""
    if not ((depth > 0) & (depth < 65535)).any():
        raise DataError(f"{name}: no pixel has a depth")
    return depth


def as_error(problem: Problem) -> DataError:
    """The error that a problem raises with `strict`. The last clause of a text line, which tells how it was handled, is cut."""
    return DataError(problem.rpartition("; ")[0] or problem) if isinstance(problem, str) else DataError(str(problem))
