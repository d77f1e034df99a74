"""The interface for showing progress of data preparation and running stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Display(Protocol):
    """Shows progress. Methods may be called from any thread, since stages may run in several."""

    def say(self, message: str) -> None:
        """Show one line of text."""

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Return a function that wraps the items of a loop and shows its progress."""

    def stage(self, title: str) -> Callable[[object], None]:
        """Show that a stage has started; returns the function that receives its events."""

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Show that the stage whose events go to `on_event` has ended."""


class Silent:
    """A display that shows nothing."""

    def say(self, message: str) -> None:
        """Ignore the message."""

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Return a function that returns the items unchanged."""
        return lambda items: items

    def stage(self, title: str) -> Callable[[object], None]:
        """Return a function that ignores events."""
        return lambda event: None

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Ignore the end of a stage."""
