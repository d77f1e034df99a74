"""Samples of `make verify-crash-points`, `verify-power-cut` and `verify-strangers`, and checks that they detect faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_bench.harness.store import store as store_module
from tests.verification import crash_points, power_cut, strangers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("scenario", "every"), [("first", 11), ("replacing", 23)])
def test_killed_at_a_sample_of_its_calls(scenario: str, every: int, tmp_path: Path) -> None:
    calls, kinds, wrong = crash_points.crash_points(scenario, tmp_path, every)
    assert not wrong and calls > 100 and sum(kinds.values()) >= 5


def test_a_run_that_is_published_before_its_chain_line_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module.chain, "append", lambda *_: None)
    _, _, wrong = crash_points.crash_points("first", tmp_path, 50)
    assert any("the chain does not name" in problem for problem in wrong)


@contextlib.contextmanager
def root_file_system() -> Iterator[None]:
    try:
        yield
    except (power_cut.CannotRun, FileNotFoundError) as error:
        pytest.skip(f"no file system can be mounted and shut down here: {error}")


def test_a_power_cut_loses_nothing_and_would_without_a_flush(tmp_path: Path) -> None:
    with root_file_system():
        counts, wrong = power_cut.power_cuts(tmp_path, 2, seed=1)
        assert not wrong and counts["runs"] == power_cut.STAGES
        assert power_cut.losses_without_sync(tmp_path, 3, seed=1), "the cut loses what was not flushed"


def test_a_sample_of_hostile_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    judge, problems = strangers.run_inputs(range(60), tmp_path)
    assert not problems and sum(judge.outcomes.values()) > 100


def test_a_link_that_is_followed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `clean` that follows `.partial`, as it once did, changes files outside."""
    canary = strangers.Canary(tmp_path / "canary")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".partial").symlink_to(canary.folder)
    judge = strangers.Judge()
    judge.command(tmp_path, "clean", "--abandoned", "--runs", str(tmp_path / "runs"))
    assert canary.problem() is None and not judge.problems
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    judge.command(tmp_path, "clean", "--abandoned", "--runs", str(tmp_path / "runs"))
    assert canary.problem() is not None
