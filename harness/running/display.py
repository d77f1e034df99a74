"""How progress is shown: of preparing data, and of running stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Display(Protocol):
    """Shows progress. Stages may run in several threads, so the methods may be called from any of them."""

    def say(self, message: str) -> None:
        """Show one line of text."""

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Return a function that wraps the items of a loop and shows how far the loop is."""

    def stage(self, title: str) -> Callable[[object], None]:
        """Show that a stage has started; returns the function that takes the stage's events."""

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Show that the stage has ended whose events `on_event` takes."""


class Silent:
    """A display that shows nothing."""

    def say(self, message: str) -> None:
        """Ignore the message."""

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Return a function that returns the items as they are."""
        return lambda items: items

    def stage(self, title: str) -> Callable[[object], None]:
        """Return a function that ignores events."""
        return lambda event: None

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Ignore the end of a stage."""
