"""The parts of a scene, such as its recording and its mesh, stand or fall separately: one that cannot be read is a problem, and
the scene keeps the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.support.errors import DataError


class SceneParts:
    """Collects what the parts of one scene hold, and the problems of those that are left out. With `strict` the first problem is
    a DataError."""

    def __init__(self, scene: str, strict: bool) -> None:
        self.scene, self.strict = scene, strict
        self.held: dict[str, Any] = {}
        self.problems: list[str] = []
        self._first: DataError | None = None

    def add(self, part: str, write: Callable[[], dict[str, Any]], undo: Callable[[], None] = lambda: None) -> None:
        """Add what `write` gives, or the problem that `part` is left out, after `undo`. Raises DataError with `strict`."""
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
        """Add a problem of the data. Raises DataError with `strict`."""
        if self.strict:
            raise as_error(text)
        self.problems.append(text)

    def result(self, nothing: str) -> dict[str, Any]:
        """Everything that the scene holds, and its problems. Raises DataError where no part could be read: the first part's own
        error, or else `nothing`."""
        if not self.held:
            raise self._first or DataError(nothing)
        return {**self.held, "problems": self.problems}


def holding_depth(depth: NDArray[np.uint16], name: str) -> NDArray[np.uint16]:
    """The depth image (H, W) itself, 0 and 65535 for none. Raises DataError, with `name`, where no pixel has a depth."""
    if not ((depth > 0) & (depth < 65535)).any():
        raise DataError(f"{name}: no pixel has a depth")
    return depth


def as_error(problem: str) -> DataError:
    """The error that a problem is with `strict`: without what was done about it, which follows the last semicolon."""
    return DataError(problem.rpartition("; ")[0] or problem)
