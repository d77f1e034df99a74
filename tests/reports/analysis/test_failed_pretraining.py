"""Failed pre-trainings count as failures of their rows, in tables and figures."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.frame import load, load_runs
from pretrain_bench.reports.analysis.variance import variances
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.figures.scores import draw_scores
from pretrain_bench.reports.tables.group_table import group_table
from tests.reports.stores import add, lose, rewrite

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_pretraining_that_failed_is_a_failure_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    for seed in range(3):
        for method in ("scratch", "ours", "csc"):
            add(store, method, 0.5 + 0.01 * seed, seed)
    # One pre-training of ours and all of csc crash; their fine-tunings never run.
    for record in list(store.records()):
        seed = record.cell.pretrain_seed if record.cell else store.spec(record.kind, record.key).seed
        gone = record.method == "csc" or (record.method == "ours" and seed == 2)
        if gone and record.kind == "finetune":
            shutil.rmtree(store.folder("finetune", record.key))
        elif gone:
            rewrite(store, record, outcome=Outcome.crashed, metrics={})
    built = build_report(store, tmp_path / "out")
    table = (tmp_path / "out/table.md").read_text()
    assert re.search(r"\| ours +\| scannet .* 2 +\| 1 pre-training +\|", table), table
    assert re.search(r"\| csc +\| scannet +\| - .* 0 +\| 3 pre-trainings +\|", table), table
    one = (tmp_path / "out/tables/table1.md").read_text()
    assert "n=2, 1 pre-training failed" in one and "| 3 pre-trainings failed" in one
    assert built.text.count("Pre-training failed") == 4
    group = load_runs(store)
    ((digest,),) = set(group.loc[group["method"] == "ours", "pretrain_stages"])
    ours = [
        FailedPretraining("b", "p", False, "ours", "scannet", seed, f"key{seed}", digest, "ours") for seed in (0, 2)
    ]
    assert failed_by_row(group, ours) == {"ours": [ours[1]]}, "seed 0 has a run, after a repair say"
    assert not failed_by_row(group, [ours[1]._replace(budget="other")]) and not failed_by_row(
        group, [ours[1]._replace(synthetic=True, pretrain_dataset="synth-scannet")]
    )
    assert failed_by_row(group.assign(synthetic=True), [ours[1]]), "a real pre-training, for a task on a stand-in"
    twice = [ours[1], ours[1]._replace(key="again")]
    assert len(failed_by_row(group, twice)["ours"]) == 1, "a seed that failed under two versions of the code is one"
    without_data = FailedPretraining("b", "p", None, "scratch", "none", 7, "k", row="scratch")
    assert failed_by_row(group, [without_data]) == {"scratch (none)": [without_data]}, (
        "real or synthetic is not told by it"
    )
    assert failed_by_row(group.assign(synthetic=True), [without_data]), "and counts for both"
    assert not failed_by_row(group, [FailedPretraining("b", "p", False, "supervised", "s3dis", 0, "k")]), (
        "not applicable there"
    )
    encoder = ours[1]._replace(transfer="encoder")
    for protocol, counts in (
        ("finetune", True),
        ("decoder", True),
        ("decoder kept", False),
        ("linear", False),
        ("linear, batch norm kept", False),
    ):
        assert bool(failed_by_row(group.assign(protocol=protocol), [encoder])) == counts, protocol
        assert failed_by_row(group.assign(protocol=protocol), [ours[1]])


def test_a_failed_pretraining_counts_where_it_was_trained_in_the_same_way(tmp_path: Path) -> None:
    """Old code has three seeds, new code two and a crash: the crash belongs to the new code."""
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    old, new = "0" * 64, "1" * 64
    for seed in range(3):
        add(store, "scratch", 0.4 + 0.01 * seed, seed, source="none")
        add(store, "ours", 0.5 + 0.01 * seed, seed, pretrain_code=old)
    for seed in range(2):
        add(store, "ours", 0.6 + 0.01 * seed, seed, pretrain_code=new)
    lose(store, "ours", 2, new)
    loaded = load(store)
    table = group_table(loaded.runs, failed_pretrainings=loaded.failed_pretrainings).set_index("method")
    failed = dict(zip(table["n"], table["failed"], strict=True))
    assert len(table) == 3 and failed[2] == "1 pre-training" and set(table.loc[table["n"] == 3, "failed"]) == {"0"}
    lose(store, "ours", 7, "2" * 64)
    loaded = load(store)
    table = group_table(loaded.runs, failed_pretrainings=loaded.failed_pretrainings).set_index("method")
    (own,) = table.index[(table["n"] == 0).to_numpy()]
    assert own == "ours, other code or recipe" and table.loc[own, "failed"] == "1 pre-training", (
        "in a third way: a row of its own"
    )


def test_failures_of_real_pretrainings_are_not_booked_to_rows_of_others(tmp_path: Path) -> None:
    """Pre-trainings of ours on real data failed; the row shows those on a synthetic stand-in."""
    store = Store(tmp_path / "runs")
    for seed in range(2):
        add(store, "csc", 0.5, seed, synthetic=True)
        add(store, "ours", 0.5, seed, synthetic=True, source="synth-scannet")
    lost = [FailedPretraining("b", "p", False, "ours", "scannet", seed, f"k{seed}", "d", "ours") for seed in range(3)]
    nothing = FailedPretraining("b", "p", None, "scratch", "none", 0, "k", "d", "scratch")
    table = group_table(load_runs(store), failed_pretrainings=[*lost, nothing]).set_index("method")
    assert table.loc["ours", "failed"] == "0" and table.loc["ours (scannet)", "failed"] == "3 pre-trainings"
    assert table.loc["scratch", "failed"] == "1 pre-training", "with data or without, both are counted"


def test_a_pretraining_that_failed_is_missing_in_every_table_across_groups(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    for seed, of in itertools.product(range(3), range(2)):
        add(store, "scratch", 0.4 + 0.01 * seed + 0.002 * of, seed, of, source="none")
        if seed < 2:
            add(store, "ours", 0.5 + 0.01 * seed + 0.003 * of, seed, of)
    lose(store, "ours", 2, "0" * 64)
    loaded = load(store)
    spread = variances(loaded.runs, loaded.failed_pretrainings).set_index("method").loc["ours"]
    assert (spread["seeds"], spread["missing"]) == ("3 x 2", 2) and np.isnan(spread["residual"])
    figure = draw_scores(
        loaded.runs, "t", {n: len(r) for n, r in failed_by_row(loaded.runs, loaded.failed_pretrainings).items()}
    )
    assert [t.get_text() for t in figure.axes[0].texts] == ["1 pre-training\nfailed"]
    figure = draw_scores(loaded.runs, "t", {"csc": 2})
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["scratch", "ours", "csc"]
