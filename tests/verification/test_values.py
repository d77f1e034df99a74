"""A sample of `make verify-values`, and a check that it detects a silently accepted value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import value_checks
from tests.verification import values

SAMPLE = 12


def test_a_sample_of_damaged_values_is_never_silent(tmp_path: Path) -> None:
    every = list(values.cases(values.ROUNDS))
    assert len(every) >= 2000
    drawn = np.random.default_rng(values.SEED).choice(len(every), SAMPLE, replace=False)
    outcomes = values.run([every[i]._replace(round=0) for i in sorted(drawn)], tmp_path)
    assert "silent" not in outcomes.values(), outcomes


def test_a_reader_without_its_check_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = [c for c in values.cases(1) if c.layout == "sunrgbd" and c.mutation.endswith("mat: times 1000")]
    assert set(values.run([case], tmp_path / "a").values()) == {"problem"}
    for check in ("check_extent", "check_boxes"):
        monkeypatch.setattr(value_checks, check, lambda *_: None)
    assert set(values.run([case], tmp_path / "b").values()) == {"silent"}


def test_every_mutation_of_specs_and_weights(tmp_path: Path) -> None:
    chosen = [c for c in values.cases(5) if c.layout in ("spec", "weights")]
    outcomes = values.run(chosen, tmp_path)
    assert len(outcomes) == 25 and set(outcomes.values()) == {"error", "equal"}
