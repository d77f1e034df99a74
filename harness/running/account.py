"""A stage's own account: the events that it wrote while running."""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_bench.harness.contract.events import End, Ledger, Start, Step, Usage, Warn
from pretrain_bench.harness.running.untrusted_text import MAX_ITEMS, clean_items, fit_to_keep


class StageAccount:
    """Collects the events of a stage, those of earlier attempts first: the last of each kind, the highest step, and the
    warnings. `starts` counts the attempts that have begun to work."""

    def __init__(self, events: Iterable[object] = ()) -> None:
        self.starts = 0
        self.numerics: dict[str, str] = {}
        self.last_step = 0
        self.ledger = Ledger()
        self.warnings: list[str] = []
        self.end: End | None = None
        for event in events:
            self.add(event)

    def add(self, event: object) -> None:
        """Add one event; other objects are ignored."""
        if isinstance(event, Start):
            self.starts += 1
            self.last_step = event.resumed_from
            self.numerics = clean_items(event.numerics)
        elif isinstance(event, Step):
            self.last_step = max(self.last_step, event.step)
        elif isinstance(event, Usage):
            self.ledger = event.ledger
        elif isinstance(event, Warn):
            self._add_warning(fit_to_keep(event.message))
        elif isinstance(event, End):
            self.end = event

    def _add_warning(self, message: str) -> None:
        """Keep each warning once, and at most MAX_ITEMS of them."""
        if message not in self.warnings and len(self.warnings) <= MAX_ITEMS:
            self.warnings.append(message if len(self.warnings) < MAX_ITEMS else "more warnings were dropped")
