"""In bubblewrap: each hostile stage ends within its limits with the right outcome, and the next run succeeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.harness.planning.stage_specs import PlannedStage
from tests.hostile.cases import cases_in, check_case
from tests.hostile.sandboxes import InBubblewrap

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", cases_in("bubblewrap"))
def test_a_hostile_stage(case: str, in_bubblewrap: InBubblewrap, planned: PlannedStage, tmp_path: Path) -> None:
    check_case(in_bubblewrap, "bubblewrap", case, planned, tmp_path)
