"""How the progress of running stages is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Display(Protocol):
    """Shows the progress of stages, which may run in several threads."""

    def say(self, message: str) -> None:
        """Show one line of text."""

    def stage(self, title: str) -> Callable[[object], None]:
        """Show that a stage has started; returns the function that takes the stage's events."""

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Show that the stage has ended whose events `on_event` takes."""


class Silent:
    """A display that shows nothing."""

    def say(self, message: str) -> None:
        """Ignore the message."""

    def stage(self, title: str) -> Callable[[object], None]:
        """Return a function that ignores events."""
        return lambda event: None

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Ignore the end of a stage."""
