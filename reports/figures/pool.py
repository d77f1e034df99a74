"""Draw figures in background processes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.specs.method import MethodCard
from pretrain_bench.benchmarks.support.process_limits import usable_cpus
from pretrain_bench.benchmarks.support.processes import process_pool
from pretrain_bench.reports.analysis.method_cards import recorded_cards, use_cards
from pretrain_bench.reports.figures.style import FigureKind, figures_for, make_ready, save

MOST_WORKERS = 8


class Drawing(NamedTuple):
    """A drawing function, the output path without suffix, and the kind of figure. All are sent to another process."""

    draw: Callable[[], Any]
    stem: Path
    kind: FigureKind = "screen"

    @property
    def png(self) -> Path:
        """The path of the PNG once it is written."""
        return self.stem.with_suffix(".png")


class FigurePool(NamedTuple):
    """`draw` queues a drawing and returns at once; `finish` waits for all of them and raises the first error."""

    draw: Callable[[Drawing], None]
    finish: Callable[[], None]


@contextmanager
def figure_pool() -> Iterator[FigurePool]:
    """A pool of processes that draw and write figures while the caller continues. They import matplotlib while idle.

    With one processor each figure is drawn immediately in this process.
    """
    workers = min(usable_cpus(), MOST_WORKERS)
    if workers < 2:
        yield FigurePool(_draw, lambda: None)
        return
    # Imported once before the processes fork, since the caller needs these too.
    import pandas  # noqa: F401
    from scipy import stats  # noqa: F401

    waiting: list[Future[None]] = []
    gc.freeze()  # garbage collection in the processes must not touch, and so copy, shared memory
    try:
        with process_pool(workers) as pool:
            for _ in range(workers):
                waiting.append(pool.submit(make_ready))

            def finish() -> None:
                for one in waiting:
                    one.result()

            try:
                yield FigurePool(
                    lambda drawing: waiting.append(pool.submit(_draw_with, recorded_cards(), drawing)), finish
                )
            finally:
                for one in waiting:  # after an error, cancel drawings that have not started
                    one.cancel()
    finally:
        gc.unfreeze()


def _draw_with(cards: dict[str, MethodCard], drawing: Drawing) -> None:
    use_cards(cards)
    _draw(drawing)


def _draw(drawing: Drawing) -> None:
    with figures_for(drawing.kind):
        save(drawing.draw(), drawing.stem)
