"""Colour, order and group of each method, for all of `reports`, so that a method looks the same everywhere.

Built-in methods have the card of their `method.yaml`, whatever a record says. A record keeps the card of its method, so a report
knows methods from outside this project too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from zlib import crc32

from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import LAST_PLACE, Method, MethodCard, MethodFile
from pretrain_bench.harness.contract.records import Record

BASELINE = "scratch"
"""The baseline, with which all other methods are compared."""
OTHER_GROUP = "other"
OTHER_COLOURS = ("#CC79A7", "#0072B2", "#999933", "#882255")
"""Colours for methods without one. The name alone selects a colour, so that it is the same in every report."""

_recorded: dict[str, MethodCard] = {}


def use_cards_of(records: Iterable[Record]) -> None:
    """Use the cards of the store being reported, and no others; the newest record of a method decides."""
    newest: dict[str, Record] = {}
    for record in records:
        if record.method_card is not None and (
            record.method not in newest or record.ended_at > newest[record.method].ended_at
        ):
            newest[record.method] = record
    use_cards({method: record.method_card for method, record in newest.items() if record.method_card is not None})


def use_cards(cards: dict[str, MethodCard]) -> None:
    """Use exactly these cards, as processes that draw figures must."""
    _recorded.clear()
    _recorded.update(cards)


def recorded_cards() -> dict[str, MethodCard]:
    """The cards in use that come from records."""
    return dict(_recorded)


def colour_of(method: str) -> str:
    """The colour of a method in all figures, as #RRGGBB."""
    card = _card(method)
    return card.colour if card and card.colour else OTHER_COLOURS[crc32(method.encode()) % len(OTHER_COLOURS)]


def place_of(method: str) -> int:
    """The position of a method in tables and figures, to sort by. Methods without a card share the last position."""
    card = _card(method)
    return card.place if card else LAST_PLACE


def group_of(method: str) -> str:
    """The kind of a method as Table I groups them: `baseline`, `multi-scan`, `single-scan` or `other`."""
    card = _card(method)
    return card.group if card else OTHER_GROUP


def uses_labels(method: str) -> bool:
    """Whether pre-training with this method reads labels."""
    card = _card(method)
    return card is not None and card.uses_labels


def is_imported(method: str) -> bool:
    """Whether it is a user's checkpoint, whose budget is unknown."""
    card = _card(method)
    return card is not None and card.origin == "imported"


def _card(method: str) -> MethodCard | None:
    return _shipped().get(method) or _recorded.get(method)


@cache
def _shipped() -> dict[str, MethodCard]:
    """The cards of built-in methods, read from their folders: reports import no method."""
    folder = Path(__file__).parent.parent.parent / "methods"
    files = [load_spec(path, MethodFile) for path in sorted(folder.glob("*/method.yaml"))]
    return {file.name: Method(**dict(file)).card for file in files}
