"""Colours of the page in light and in dark, and their contrast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PALETTES = {
    "light": {
        "paper": "#ffffff", "raised": "#f4f6f7", "ink": "#1d2328", "soft": "#59646d", "line": "#d5dade", "link": "#00558c",
        "mark": "#8a4b00", "markbg": "#fff3e0", "bad": "#b00020", "shade": "#56b4e9",
        "better": "#01665e", "on-better": "#ffffff", "worse": "#8c510a", "on-worse": "#ffffff",
    },
    "dark": {
        "paper": "#15191c", "raised": "#1d2226", "ink": "#e4e8eb", "soft": "#9aa5ad", "line": "#3a434a", "link": "#7cc4f4",
        "mark": "#ffc98a", "markbg": "#3a2a14", "bad": "#ff8a80", "shade": "#0067a3",
        "better": "#35978f", "on-better": "#0b0e10", "worse": "#d0913f", "on-worse": "#0b0e10",
    },
}  # fmt: skip
"""Theme to CSS variables; text in the colour `on-X` is placed on X."""
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0
"""Least contrast of text and of marks (WCAG 2.1, criteria 1.4.3 and 1.4.11)."""


def contrast(one: str, two: str) -> float:
    """Contrast of two colours #RRGGBB, from 1 to 21 (WCAG 2.1, relative luminance)."""
    high, low = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def readable(colour: str, theme: str) -> str:
    """The colour of a mark on the background of a theme: unchanged if its contrast is sufficient, else mixed with the ink
    until it contrasts as much as on the other background, so that black and grey stay distinct."""
    paper, ink = PALETTES[theme]["paper"], PALETTES[theme]["ink"]
    if contrast(colour, paper) >= MARK_CONTRAST:
        return colour
    other = max(contrast(colour, palette["paper"]) for palette in PALETTES.values())
    wanted = max(MARK_CONTRAST, min(other, contrast(ink, paper))) if theme == "dark" else MARK_CONTRAST
    mixes = (_mix(colour, ink, percent / 100) for percent in range(0, 101, 5))
    return next(mixed for mixed in mixes if contrast(mixed, paper) >= wanted)


def themed_colours(figures: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The colours of marks and lines in interactive figures, each as it is readable in light and in dark."""
    parts = [trace.get(part, {}) for figure in figures for trace in figure["data"] for part in ("marker", "line")]
    colours = sorted({colour for part in parts if (colour := part.get("color"))})
    return {colour: [readable(colour, theme) for theme in PALETTES] for colour in colours}


def style_variables() -> str:
    """The palettes as CSS; printed pages use the light one."""
    light, dark = (
        " ".join(f"--{name}: {value};" for name, value in PALETTES[theme].items()) for theme in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _mix(colour: str, other: str, share: float) -> str:
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
