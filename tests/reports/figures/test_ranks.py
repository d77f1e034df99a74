"""Rank diagrams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.reports.analysis.statistics import ranking
from pretrain_bench.reports.figures.ranks import draw_ranks
from pretrain_bench.reports.figures.style import save
from tests.reports.frames import METHODS


def test_ranks_are_drawn_only_where_a_test_supports_them(tmp_path: Path) -> None:
    ranks = ranking(np.array([[60 - 4 * m + 0.1 * ((t * m) % 3) for m in range(6)] for t in range(7)]))
    assert ranks is not None and ranks.critical_difference is not None
    paths = save(draw_ranks(list(METHODS), ranks, "Ranks"), tmp_path / "ranks")
    assert all(path.stat().st_size > 1000 for path in paths)
    text = paths[1].read_text()
    assert all(name in text for name in METHODS) or "<path" in text
    flat = ranking(np.array([[50.0 + ((t + m) % 6) for m in range(6)] for t in range(7)]))
    assert flat is not None and flat.critical_difference is None
    with pytest.raises(ValueError, match="supports no ranking"):
        draw_ranks(list(METHODS), flat, "Ranks")
