"""Sequential runs that stop once decided: looks, their bounds, and skipped runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.api import deciding
from pretrain_bench.api.running import RunResult
from pretrain_bench.harness.store.store import Store
from tests.reports.stores import add


def suite(seeds: int, methods: tuple[str, ...] = ("scratch", "ours", "csc")) -> Any:
    return pb.cells(methods, "s3dis-sem", budget="smoke", pretrain_seeds=range(seeds))


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Replace `run` by records with a large gain of ours and none of csc; gives the seeds of each call."""
    store, calls = Store(tmp_path), []

    def run(cells: Any, **options: Any) -> RunResult:
        calls.append(cells.pretrain_seeds)
        for seed in cells.pretrain_seeds[-2:]:
            for method, gain in (("scratch", 0.0), ("ours", 0.3), ("csc", 0.0)):
                if method in cells.methods:
                    add(store, method, 0.3 + gain + 0.001 * ((seed * 7 + len(method)) % 5), seed)
        result = RunResult([], [])
        monkeypatch.setattr(deciding, "_p_values", lambda runs, keys: original(runs, None))  # everything recorded
        return result

    original = deciding._p_values
    monkeypatch.setattr(deciding, "run", run)
    return calls


def test_a_study_stops_once_every_method_is_decided(recorded: list[tuple[int, ...]], tmp_path: Path) -> None:
    _, looks = pb.run_until_decided(suite(6, ("scratch", "ours")), "pocock", runs=tmp_path, display=pb.Silent())
    assert (
        len(looks) == len(recorded) < 3 and looks[-1].open == [] and looks[-1].level == pytest.approx(0.0221, abs=1e-4)
    )
    assert "1 of 1 comparisons with scratch decided; ours" in str(looks[-1])


def test_one_filter_is_taken_as_it_is(recorded: list[tuple[int, ...]], tmp_path: Path) -> None:
    cells = suite(6, ("scratch", "ours"))
    pb.run_until_decided(cells, "pocock", runs=tmp_path, only="pretrain_seed=0,1,2,3", display=pb.Silent())
    assert recorded[0] == (0, 1)


def test_failed_runs_are_retried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retries = []

    def run(cells: Any, **options: Any) -> RunResult:
        retries.append(options["retry"])
        monkeypatch.setattr(deciding, "_p_values", lambda runs, keys: {("group", "ours"): 0.5})
        return RunResult([], [])

    monkeypatch.setattr(deciding, "run", run)
    pb.run_until_decided(suite(6), "pocock", runs=tmp_path, display=pb.Silent(), retry="failed")
    assert retries == ["failed", "infra", "infra"]


def test_a_method_without_a_gain_keeps_the_study_open_to_the_last_look(
    recorded: list[tuple[int, ...]], tmp_path: Path
) -> None:
    _, looks = pb.run_until_decided(suite(6), "obrien-fleming", runs=tmp_path, display=pb.Silent())
    assert recorded == [(0, 1), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]
    assert [row for _, row in looks[-1].open] == ["csc"]
    decided = [row for look in looks for _, row in look.decided]
    assert decided == ["ours"], "what is decided is not tested again"


def test_a_study_without_looks_or_scratch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pb.WrongUse, match="the suite has 3, expected a multiple of 2"):
        pb.run_until_decided(suite(3), "pocock", runs=tmp_path)
    with pytest.raises(pb.WrongUse, match="has no scratch"):
        pb.run_until_decided(suite(4, ("ours",)), "pocock", runs=tmp_path)
