"""Colour, order and group of each method. All of `reports` asks this module, so that a method looks the same everywhere."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

BASELINE = "scratch"
"""The method that all others are compared with."""


class MethodCard(NamedTuple):
    """How reports show one method."""

    colour: str
    group: str
    uses_labels: bool = False


# In table order. The colours are the colour-blind-safe palette of Okabe and Ito.
_CARDS = {
    "scratch": MethodCard("#777777", "baseline"),
    "supervised": MethodCard("#000000", "baseline", uses_labels=True),
    "pointcontrast": MethodCard("#E69F00", "multi-scan"),
    "csc": MethodCard("#56B4E9", "multi-scan"),
    "depthcontrast": MethodCard("#009E73", "single-scan"),
    "ours": MethodCard("#D55E00", "single-scan"),
}
_PLACES = {method: place for place, method in enumerate(_CARDS)}
OTHER_GROUP = "other"
OTHER_COLOURS = ("#CC79A7", "#0072B2", "#999933", "#882255")
"""Colours of methods without a card. The name alone selects one, so that a method has the same colour in every report."""


def colour_of(method: str) -> str:
    """The colour of a method in all figures, as #RRGGBB."""
    card = _CARDS.get(method)
    return card.colour if card else OTHER_COLOURS[crc32(method.encode()) % len(OTHER_COLOURS)]


def place_of(method: str) -> int:
    """The position of a method in tables and figures, to sort by. Methods without a card share the last position."""
    return _PLACES.get(method, len(_PLACES))


def group_of(method: str) -> str:
    """The kind of a method as Table I groups them: `baseline`, `multi-scan`, `single-scan` or `other`."""
    card = _CARDS.get(method)
    return card.group if card else OTHER_GROUP


def uses_labels(method: str) -> bool:
    """Whether pre-training with this method reads labels."""
    card = _CARDS.get(method)
    return card is not None and card.uses_labels
