"""The paper's statements and what these runs say about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretrain_bench.reports.analysis.claims import LEAST_SEEDS, OVER_RATIOS
from pretrain_bench.reports.tables.wording import format_budget

if TYPE_CHECKING:
    import pandas as pd

CLAIMS_TITLE = (
    "The paper's statements on these runs: difference from scratch in points with its 95 % interval, p of the test behind the "
    "verdict (if it cannot tell: of the statement) with Holm's correction for its family (not for an equivalence), n "
    "pre-training seeds, failed: seeds left out because a run failed"
)
STATEMENTS = {
    "better": "{method} better than scratch{published}",
    "equivalent": "{method} within ±0.5 of scratch",
    "smallest_spread": "{method}: smallest spread of gains",
    "greatest_low": "{method}: greatest lowest gain",
    "early": "{method} within 1 at 5 % of the steps",
    "order": "final order visible at 10 % of steps",
}
"""What the paper says, by test."""


def claims_table(claims: pd.DataFrame) -> pd.DataFrame:
    """One row for each statement of `analysis.claims.claims`, as text. `here` has the difference and its interval; about label
    ratios the share of bootstrap samples in which the method leads; about the order the rank correlation."""
    import pandas as pd

    rows = []
    for claim in claims.to_dict("records"):
        paper = "" if math.isnan(claim["published"]) else f" ({claim['published']:+.1f})"
        rows.append(
            {
                "family": claim["family"],
                "task": claim["task"],
                "statement": STATEMENTS[str(claim["test"])].format(method=claim["method"], published=paper),
                "here": _found(claim),
                "p": "-" if math.isnan(claim["p_of_verdict"]) else f"{claim['p_of_verdict']:.3f}",
                "n": claim["n"],
                "failed": claim["failed"],
                "verdict": claim["verdict"],
                "budget": format_budget(claim["budget"], claim["profile"]),
            }
        )
    table = pd.DataFrame(rows)
    if not len(table):
        return table
    spared = ["budget"] * (table["budget"].nunique() == 1) + ["failed"] * (not table["failed"].any())
    return table.drop(columns=spared)


def _found(claim: Mapping[Any, Any]) -> str:
    value = float(claim["value"])
    if math.isnan(value):
        return "too few seeds" if claim["n"] < LEAST_SEEDS else "no spread"
    if claim["test"] in OVER_RATIOS:
        return f"leads in {100 * value:.0f} % of samples"
    digits, sign = (2, "") if claim["test"] == "order" else (1, "+")
    interval = "" if math.isnan(claim["low"]) else f" [{claim['low']:.{digits}f}, {claim['high']:.{digits}f}]"
    return f"{value:{sign}.{digits}f}{interval}"
