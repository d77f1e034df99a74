"""Contrast of the page's colours in both themes."""

from __future__ import annotations

import re

import pytest

from pretrain_bench.reports.analysis.method_cards import _shipped
from pretrain_bench.reports.page.html import TEMPLATES
from pretrain_bench.reports.page.palette import MARK_CONTRAST, PALETTES, TEXT_CONTRAST, contrast, readable
from pretrain_bench.reports.page.plotly_figures import PAPER_GREY

COLOURS = [*(card.colour for card in _shipped().values() if card.colour), PAPER_GREY, "#000000", "#ffffff", "#F0E442"]
TEXT = [
    *((name, ground) for name in ("ink", "soft", "bad", "link") for ground in ("paper", "raised")),
    ("mark", "markbg"), ("on-better", "better"), ("on-worse", "worse"),
]  # fmt: skip


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#777777") == 1
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01), "the example of WCAG's own documents"


@pytest.mark.parametrize("theme", PALETTES)
def test_text_and_marks_can_be_read(theme: str) -> None:
    palette = PALETTES[theme]
    for text, ground in TEXT:
        assert contrast(palette[text], palette[ground]) >= TEXT_CONTRAST, f"{theme}: {text} on {ground}"
    for mark in ("better", "worse"):
        assert contrast(palette[mark], palette["paper"]) >= MARK_CONTRAST, f"{theme}: {mark}"
    shown = {colour: readable(colour, theme) for colour in COLOURS}
    for colour, mixed in shown.items():
        assert contrast(mixed, palette["paper"]) >= MARK_CONTRAST, f"{theme}: {colour} as {mixed}"
    assert contrast(shown["#000000"], shown["#777777"]) > 2, "supervised and scratch stay apart"


def test_the_style_names_no_colour_of_its_own() -> None:
    """Each additional colour would have to be checked in both themes."""
    css = (TEMPLATES / "report.css").read_text()
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;, )])", css)
    used = set(re.findall(r"var\(--([a-z-]+)\)", css)) - {"share"}
    assert used <= set(PALETTES["light"]) and set(PALETTES["light"]) == set(PALETTES["dark"])
    assert PALETTES["light"]["paper"] != PALETTES["dark"]["paper"]
