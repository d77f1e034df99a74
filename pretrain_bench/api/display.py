"""Progress on a terminal or in a notebook; any object with the methods of `Display` can take its place."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.harness.contract.events import Start, Step
from pretrain_bench.harness.running.display import Display, Silent

__all__ = ["Display", "LineDisplay", "Progressed", "Silent", "TqdmDisplay", "default_display", "duration", "printable"]

WIDTH = 100
TITLE_WIDTH = 34


class _Stderr:
    """sys.stderr as it is at each call. Failed writes are dropped: a closed terminal must not end a run."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "ascii"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # closed, by its reader or by this process
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


STDERR: Any = _Stderr()


class Progressed(NamedTuple):
    """The event of a stage that is not training, such as the build of an image."""

    step: int
    steps: int


class TqdmDisplay:
    """Lines and tqdm bars on stderr; in a notebook, the notebook's own bars."""

    def __init__(self) -> None:
        self._bars: dict[Callable[[object], None], Any] = {}
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        """Print one line above any running bar, with control characters replaced."""
        with self._lock:
            bar = next(iter(self._bars.values()), None)
            if bar is not None:
                bar.write(printable(message), file=STDERR)
            else:
                print(printable(message), file=STDERR, flush=True)

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """A bar over a list of items."""

        def wrap(items: Iterable[str]) -> Iterable[str]:
            items = list(items)
            return _bar(title, iterable=items, total=len(items), unit="it")

        return wrap

    def stage(self, title: str) -> Callable[[object], None]:
        """A bar for a stage; its total comes with the stage's first event."""
        with self._lock:
            bar = _bar(title, total=None, unit="step")

        def on_event(event: object) -> None:
            if isinstance(event, Start):
                bar.reset(total=event.total_steps)  # the only way to give a notebook's bar a new total
                bar.initial = bar.n = event.resumed_from
                bar.refresh()
            elif isinstance(event, Step):
                bar.set_postfix_str(f"loss {event.loss:.3f}", refresh=False)
                if event.done:
                    bar.total = round(event.step / event.done)
                bar.update(max(0, event.step - bar.n))
            elif isinstance(event, Progressed):
                bar.total, bar.n = event.steps, event.step
                bar.refresh()

        with self._lock:
            self._bars[on_event] = bar
        return on_event

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Close the stage's bar."""
        with self._lock:
            self._bars.pop(on_event).close()


class LineDisplay:
    """Plain lines on stderr for logs and pipes: one where something starts and ends, and at most one a minute between.

    Going through a list in less than `quiet_seconds` prints nothing.
    """

    def __init__(
        self,
        every_seconds: float = 60.0,
        quiet_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every, self._quiet, self._clock = every_seconds, quiet_seconds, clock
        self._stages: dict[Callable[[object], None], _Counted] = {}

    def say(self, message: str) -> None:
        """Print one line, with control characters replaced."""
        print(printable(message), file=STDERR, flush=True)

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Lines about a list of items."""

        def wrap(items: Iterable[str]) -> Iterator[str]:
            items = list(items)
            counted = _Counted(self, title)
            counted.total = len(items)
            for number, item in enumerate(items, 1):
                yield item
                counted.at(number)
            if counted.seconds() >= self._quiet:
                counted.end()

        return wrap

    def stage(self, title: str) -> Callable[[object], None]:
        """Lines about a stage."""
        counted = _Counted(self, title)

        def on_event(event: object) -> None:
            if isinstance(event, Start):
                counted.total, counted.first = event.total_steps, event.resumed_from
                self.say(f"{title}: " + (f"resumes after step {counted.first:,}" if counted.first else "starts"))
            elif isinstance(event, Step):
                if event.done:
                    counted.total = round(event.step / event.done)
                counted.at(event.step, f", loss {event.loss:.3f}")
            elif isinstance(event, Progressed):
                counted.total = event.steps
                counted.at(event.step)

        self._stages[on_event] = counted
        return on_event

    def stage_ended(self, on_event: Callable[[object], None]) -> None:
        """Print the last line of a stage."""
        self._stages.pop(on_event).end()


class _Counted:
    """Prints how far one count is, at most once in the display's interval."""

    def __init__(self, display: LineDisplay, title: str) -> None:
        self.display, self.title = display, title
        self.total: int | None = None
        self.first = self.last = 0
        self.began = self.printed = display._clock()

    def at(self, number: int, more: str = "") -> None:
        """Note that `number` are done; prints where the last line is long ago."""
        self.last, now = number, self.display._clock()
        if now - self.printed < self.display._every:
            return
        self.printed = now
        left = ""
        if self.total and number > self.first:
            seconds = (now - self.began) / (number - self.first) * (self.total - number)
            left = f", {about(seconds)} left"
        self.display.say(f"{self.title}: {number:,}{self._of()}{more}{left}")

    def end(self) -> None:
        """Print how far it came and how long that took."""
        took = duration(self.seconds())
        counted = f"{self.last:,}{self._of()}" if self.total else "done"  # a stage may have nothing to count
        self.display.say(f"{self.title}: {counted} in {took}")

    def seconds(self) -> float:
        """Time since counting began."""
        return self.display._clock() - self.began

    def _of(self) -> str:
        return "" if self.total is None else f" of {self.total:,}"


PROGRESS = "BENCH_PROGRESS"
"""Environment variable: `bars`, `lines` or `none`; by default bars on a terminal and in a notebook, lines elsewhere."""


def default_display() -> Display:
    """The display of this process. Raises WrongUse for an unknown value of BENCH_PROGRESS."""
    chosen = os.environ.get(PROGRESS) or ("bars" if STDERR.isatty() or _in_notebook() else "lines")
    displays: dict[str, Callable[[], Display]] = {"bars": TqdmDisplay, "lines": LineDisplay, "none": Silent}
    if chosen not in displays:
        raise WrongUse(f"{PROGRESS}={chosen}: expected one of {', '.join(displays)}")
    return displays[chosen]()


def _in_notebook() -> bool:
    from tqdm.auto import tqdm

    return any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def _bar(title: str, **options: Any) -> Any:
    """A tqdm bar that fits where it is shown; a notebook sets the width of its own bars."""
    from tqdm.auto import tqdm

    if _in_notebook():
        return tqdm(desc=title, **options)
    return tqdm(desc=f"{title:<{TITLE_WIDTH}.{TITLE_WIDTH}}", ncols=WIDTH, file=STDERR, **options)


def printable(text: str) -> str:
    """Text without control characters: the output of a stage must not control the terminal. Bytes of file names that are not
    UTF-8 are escaped, as `\\xfc`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in readable(text))


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 1:
        return "<1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def about(seconds: float) -> str:
    """An estimated time in words: `about 3 min`."""
    return "less than a second" if seconds < 1 else f"about {duration(seconds)}"
