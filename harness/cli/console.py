"""What the commands print: lines and bars for a person on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.cell import Cell
    from pretrain_bench.harness.store.store import Store

WIDTH = 100
LEAST_WIDTH = 8


class Console:
    """Lines, and a tqdm bar for each running stage; `quiet` shows neither (for --json). Stages may run in several threads."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars: dict[Callable[[object], None], Any] = {}
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        """One line, without control characters, above a running bar."""
        if self.quiet:
            return
        with self._lock:
            bar = next(iter(self._bars.values()), None)
            if bar is not None:
                bar.write(printable(message), file=sys.stderr)
            else:
                print(printable(message), file=sys.stderr, flush=True)

    def progress(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        """Wraps a list of things to do with a bar of its length."""
        from tqdm import tqdm

        return lambda items: tqdm(list(items), desc=f"{title:<34.34}", ncols=WIDTH, file=sys.stderr, disable=self.quiet)

    def stage(self, title: str) -> Callable[[object], None]:
        """A bar for a stage; its total comes with the stage's first event."""
        from tqdm import tqdm

        from pretrain_bench.harness.contract.events import Start, Step

        with self._lock:
            bar = tqdm(
                total=None, desc=f"{title:<34.34}", ncols=WIDTH, file=sys.stderr, disable=self.quiet, unit="step"
            )

        def on_event(event: object) -> None:
            if isinstance(event, Start):
                bar.total, bar.initial = event.total_steps, event.resumed_from
                bar.n = event.resumed_from
                bar.refresh()
            elif isinstance(event, Step):
                bar.set_postfix_str(f"loss {event.loss:.3f}", refresh=False)
                bar.update(max(0, event.step - bar.n))

        with self._lock:
            self._bars[on_event] = bar
        return on_event

    def stage_ended(self, shown: Callable[[object], None]) -> None:
        """Close the stage's bar."""
        with self._lock:
            self._bars.pop(shown).close()


def printable(text: str) -> str:
    """Text without control characters: what came out of a stage is not to be trusted with the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell; the widest columns are cut so that a line fits WIDTH."""
    cells = [[printable(str(c)) for c in row] for row in [headers, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = ["  ".join(_fit(c, w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Around what writes at a place that a person chose: EnvironmentCannot where the machine refuses."""
    from pretrain_bench.benchmarks.support.errors import cannot_write

    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, what) from error


def say_unrecorded(store: Store) -> None:
    """Tell of run folders that no list and no report counts."""
    names = store.unrecorded()
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"warning: {names[0]}{more}: no record, so not counted; bench audit says what is there", file=sys.stderr)


def print_json(data: object) -> None:
    """Machine output on stdout."""
    print(json.dumps(data, indent=1, sort_keys=True, allow_nan=False))


def seeds(cell: Cell | None, own: object) -> str:
    """Seed of the pre-training, and of the fine-tuning after a stroke; of a pre-training its own."""
    return str(own) if cell is None else f"{cell.pretrain_seed}/{cell.finetune_seed}"


def duration(seconds: float) -> str:
    """A time in the unit that a person would say it in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def per_cent(value: float | None) -> str:
    """A share as per cent with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"
