"""Steps until a method reaches scratch, against hand-computed values."""

from __future__ import annotations

from pretrain_bench.reports.analysis.curves import Curve
from pretrain_bench.reports.tables.convergence_table import convergence_table


def test_steps_to_reach_by_hand() -> None:
    curves = {
        "scratch": [Curve("scratch", "a", 0, [10, 20, 30], [0.3, 0.5, 0.6])],
        "ours": [
            Curve("ours", "b", 0, [10, 20, 30], [0.4, 0.595, 0.61]),
            Curve("ours", "c", 1, [10, 20, 30], [0.3, 0.4, 0.5]),
        ],
    }
    found = convergence_table(curves).set_index("method")
    assert found.loc["scratch"].tolist() == ["30", "1 of 1", "1.00x"]
    assert found.loc["ours"].tolist() == ["never", "1 of 2", "-"]
    assert not len(convergence_table({"ours": curves["ours"]}))
    assert not len(convergence_table({**curves, "scratch #b": curves["scratch"]})), (
        "two kinds of scratch give no one goal"
    )
    crashed = convergence_table(curves, {"scratch": 1, "ours": 1}).set_index("method")
    assert crashed.loc["scratch"].tolist() == ["never", "1 of 2", "-"]
    assert convergence_table(curves, {"scratch": 1}).set_index("method").loc["ours", "speed-up"] == "-"
    sooner = convergence_table({**curves, "csc": [Curve("csc", "d", 0, [10], [0.6])]}, {"scratch": 1}).set_index(
        "method"
    )
    assert sooner.loc["csc"].tolist() == ["10", "1 of 1", "-"], "over scratch that never got there there is no speed-up"
    assert crashed.loc["ours", "reached by"] == "1 of 3", "a pre-training that ended badly never got there"


def test_the_unit_of_steps_to_reach_is_the_pretraining() -> None:
    """One run of scratch ends at 40, four from another pre-training at 50: the tables' mean is 45, so the goal is 44."""
    ends = [(0, 0.4), *[(1, 0.5)] * 4]
    curves = {
        "scratch": [Curve("scratch", str(n), seed, [10, 20], [0.1, end]) for n, (seed, end) in enumerate(ends)],
        "ours": [Curve("ours", "o", 0, [10, 20], [0.1, 0.45]), Curve("ours", "p", 0, [10, 20], [0.45, 0.45])],
    }
    found = convergence_table(curves).set_index("method")
    assert found.loc["ours"].tolist() == ["15", "1 of 1", "-"] and found.loc["scratch", "reached by"] == "1 of 2"


def test_a_row_that_never_ended_well_is_not_left_out_of_steps_to_reach() -> None:
    curves = {"scratch": [Curve("scratch", "a", 0, [10, 20], [0.3, 0.6])]}
    found = convergence_table(curves, {"scratch": 0, "csc": 2}).set_index("method")
    assert found.loc["csc"].tolist() == ["never", "0 of 2", "-"] and found.loc["scratch", "reached by"] == "1 of 1"


def test_nothing_is_reached_where_scratch_has_nothing() -> None:
    curves = {m: [Curve(m, m, 0, [10, 20], [0.0, last])] for m, last in (("scratch", 0.008), ("ours", 0.3))}
    assert not len(convergence_table(curves))
    assert len(convergence_table({m: [c._replace(scores=[0.0, 0.1])] for m, (c,) in curves.items()})) == 2
