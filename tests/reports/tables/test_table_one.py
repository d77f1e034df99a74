"""Table I, and published numbers in tables."""

from __future__ import annotations

import re

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.tables.table_one import table_one

pytestmark = pytest.mark.usefixtures("undrawn")


def test_table_one_states_only_supported_claims(planted_store: Store) -> None:
    table = table_one(effects(load(planted_store).runs)).set_index("method")
    (column,) = [c for c in table.columns if c != "group"]
    assert column == "s3dis-sem (s3dis, b, p, selected)"
    assert re.fullmatch(
        r"\d+\.\d ±\d+\.\d \(\+\d\.\d \[\d\.\d, \d\.\d\] better\) n=4(, \d of 8 failed)?",
        table.loc["supervised", column],
    )
    one = load(planted_store).runs.query("pretrain_seed == 0")
    assert re.fullmatch(
        r"\d+\.\d \(\+\d\.\d\) n=1(, \d of 2 failed)?",
        table_one(effects(one)).set_index("method").loc["supervised", column],
    )
    assert effects(one)["probability_of_improvement"].isna().all(), "one run is above or below another, and that is all"
