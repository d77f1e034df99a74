"""Progress on a terminal or in a notebook; any object with the methods of `Display` can take its place."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.harness.contract.events import Start, Step
from pretrain_bench.harness.running.display import Display, Silent

__all__ = ["Display", "Progressed", "Silent", "TqdmDisplay", "printable"]

WIDTH = 100
TITLE_WIDTH = 34


class _Stderr:
    """sys.stderr as it is at each call. What cannot be written is dropped: a terminal that is gone must not end a run."""

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
                bar.reset(total=event.total_steps)  # a notebook's bar takes a new total only so
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


def _bar(title: str, **options: Any) -> Any:
    """A tqdm bar that fits where it is shown; a notebook sets the width of its own bars."""
    from tqdm.auto import tqdm

    if any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        return tqdm(desc=title, **options)
    return tqdm(desc=f"{title:<{TITLE_WIDTH}.{TITLE_WIDTH}}", ncols=WIDTH, file=STDERR, **options)


def printable(text: str) -> str:
    """Text without control characters: the output of a stage must not control the terminal. Bytes of file names that are not
    UTF-8 are escaped, as `\\xfc`."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in readable(text))
