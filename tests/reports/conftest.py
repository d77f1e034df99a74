"""What the tests of reports share."""

import pytest

from pretrain_bench.reports.figures.plots import make_ready


@pytest.fixture(scope="session", autouse=True)
def ready_to_draw() -> None:
    """Every report is drawn by processes of its own, which need not import seaborn anew if this one has."""
    make_ready()
