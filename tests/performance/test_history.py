"""The history of `make perf`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.store.provenance import provenance
from tests.performance.history import COLUMNS, append_rows, last_ratios


def test_the_last_ratio_on_this_kind_of_machine_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    here = provenance({}).model_copy(update={"git_commit": "a" * 40, "git_dirty": False, "cpu": "one"})
    elsewhere = here.model_copy(update={"cpu": "two"})
    assert last_ratios(here, path) == {}
    for ratio, machine in ((0.5, here), (0.25, here), (9.0, elsewhere)):
        append_rows([{"name": "a step, CPU seconds", "ratio": ratio, "must": 0.45}], machine, "2026-11-29", path)
    assert last_ratios(here, path) == {"a step, CPU seconds": 0.25}
    head, first, *_ = path.read_text().splitlines()
    assert head == ",".join(COLUMNS)
    assert first.startswith(f"2026-11-29,{'a' * 12},one,") and first.endswith(',"a step, CPU seconds",0.500,0.45')


def test_what_no_commit_names_is_not_recorded(tmp_path: Path) -> None:
    dirty = provenance({}).model_copy(update={"git_commit": "a" * 40, "git_dirty": True})
    with pytest.raises(WrongUse, match="commit the changes first"):
        append_rows([], dirty, "2026-11-29", tmp_path / "history.csv")
    assert not list(tmp_path.iterdir())
