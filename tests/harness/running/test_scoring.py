"""The scores reported by a stage are compared with those of its saved predictions."""

from __future__ import annotations

from pretrain_bench.harness.running.scoring import disagreement


def test_the_stages_own_numbers_must_agree() -> None:
    assert disagreement({"a": 0.5, "b": None}, {"a": 0.5, "b": None, "c": 1.0}) is None
    assert disagreement({"a": 0.5}, {"a": 0.51}) == "a: the stage says 0.51, its predictions give 0.5"
    assert disagreement({"a": 0.5}, {}) is not None and disagreement({"a": None}, {"a": 0.0}) is not None
