"""Records as rows of a data frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.planning import stage_specs as graph
from pretrain_bench.harness.store.store import Store, write_json
from pretrain_bench.reports.analysis.columns import GROUP, NO_DATASET
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining
from pretrain_bench.reports.analysis.families import families
from pretrain_bench.reports.analysis.frame import gpu_joules, load, load_runs, with_row_names
from pretrain_bench.reports.tables.group_table import group_table
from pretrain_bench.reports.tables.ratio_table import ratio_table
from tests.reports.stores import add, only_group, rewrite


def test_runs_of_another_protocol_or_source_are_not_averaged(store: Store) -> None:
    add(store, "ours", 0.5)
    add(store, "ours", 0.9, source="rgbd-folder")
    table = group_table(only_group(store))
    assert sorted(table["method"]) == ["ours (rgbd-folder)", "ours (scannet)"] and set(table["n"]) == {1}
    add(store, "ours", 0.1, voxel=0.2)
    assert load_runs(store)["conditions"].nunique() == 2
    add(store, "ours", 0.2, percent=5.0)
    assert load_runs(store).groupby(GROUP).ngroups == 3


def test_a_row_has_one_name_in_every_table(store: Store) -> None:
    add(store, "scratch", 0.4, source="none")
    add(store, "scratch", 0.3, source="none", percent=5.0)
    add(store, "ours", 0.5)
    add(store, "ours", 0.4, percent=5.0)
    add(store, "ours", 0.3, source="rgbd-folder", percent=5.0)
    add(store, "csc", 0.4)
    runs = load_runs(store)
    assert set(runs["row"]) == {"scratch", "ours (scannet)", "ours (rgbd-folder)", "csc"}
    (table,) = (ratio_table(family) for family in families(effects(runs)))
    table = table.set_index("method")
    assert table.loc["ours (scannet)", "5%"].startswith("40.0") and table.loc["ours (scannet)", "100%"].startswith(
        "50.0"
    )
    assert table.loc["ours (rgbd-folder)", "100%"] == "not run"
    lost = [
        FailedPretraining("b", "p", False, "csc", "rgbd-folder", 0, "k"),
        FailedPretraining("b", "p", True, "ours", "scannet", 0, "k"),
    ]
    again, renamed = with_row_names(runs, lost)
    assert set(again["row"]) == {"scratch", "ours (scannet)", "ours (rgbd-folder)", "csc (scannet)"}
    assert [one.row for one in renamed] == ["csc (rgbd-folder)", "ours"], "synthetic runs are named by themselves"


def test_all_ratios_of_a_task_are_judged_by_one_checkpoint(store: Store) -> None:
    for method, source in (("scratch", "none"), ("ours", "scannet")):
        add(store, method, 0.5, source=source)
        add(store, method, 0.4, source=source, percent=5.0)
    assert set(load_runs(store)["checkpoint"]) == {"selected"}
    add(store, "csc", 0.3, percent=5.0, checkpoints=("final", "best"))  # too few scenes to hold any out
    assert set(effects(load_runs(store))["checkpoint"]) == {"final"}
    add(store, "depthcontrast", 0.0, percent=5.0, outcome="crashed")
    assert set(load_runs(store)["checkpoint"]) == {"final"}


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 7), ("seed", -1), ("seed", True), ("parents", ["points"]), ("parents", {"points": 1})]
)
def test_specs_that_runs_share_are_still_checked_one_by_one(store: Store, field: str, value: object) -> None:
    """Specs that differ only in seed and parents are validated once; each must still hash to its run's key."""
    for seed in range(3):
        add(store, "ours", 0.5, 0, seed)
    specs = load(store).specs
    assert len({id(specs[r.key]) for r in store.records() if r.kind == "finetune"}) == 1
    last = [r.key for r in store.records()][-1]
    path = store.folder("finetune", last) / "spec.json"
    write_json(path, {**json.loads(path.read_text()), field: value})
    loaded = load(store)
    assert last not in loaded.specs and last not in loaded.records and len(loaded.runs) == 2
    assert len(store.unreadable()) == 1 and "spec.json" in store.unreadable()[0]


def test_a_record_counts_as_it_was_sealed_however_it_is_laid_out(store: Store) -> None:
    add(store, "ours", 0.5)
    path = next(store.root.glob("finetune/*/record.json"))
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(plain.items()))))
    assert [r.method for r in store.records()] == ["ours", "ours"]
    path.write_text(json.dumps({**plain, "method": "csc"}))
    assert len(list(store.records())) == 1 and "does not match its own hash" in store.unreadable()[0]


def test_records_read_back_as_they_were(store: Store) -> None:
    add(store, "ours", 0.5)
    (record,) = [r for r in store.records() if r.kind == "finetune"]
    path = store.folder("finetune", record.key) / "record.json"
    assert Record.model_validate(json.loads(path.read_text())) == record and record.outcome == Outcome.ok


def test_a_record_without_its_cell_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    (record,) = [r for r in store.records() if r.cell]
    rewrite(store, record, cell=None)
    assert load(store).runs.empty
    assert store.unreadable()[0].startswith(f"finetune/{record.key}: its record names no cell")


def test_a_report_names_no_dataset_as_cells_do() -> None:
    assert NO_DATASET == graph.NO_DATASET


def test_limited_labels_have_no_share(store: Store) -> None:
    add(store, "scratch", 0.4, labels=LabelRatio(boxes=2))
    add(store, "csc", 0.4, labels=LabelRatio(points=20))
    add(store, "ours", 0.5, percent=5.0)
    shares = load_runs(store).set_index("method")["label_percent"]
    assert np.isnan(shares[["scratch", "csc"]]).all() and shares["ours"] == 5.0


def test_a_run_whose_pretraining_has_no_record_is_no_way_of_pretraining(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    (key,) = [r.key for r in store.records() if r.kind == "pretrain"]
    shutil.rmtree(store.folder("pretrain", key))
    add(store, "csc", 0.5)
    assert list(load(store).runs["method"]) == ["csc"]
    assert f": its parent pretrain/{key} has no readable record" in store.unreadable()[0]


def test_energy_of_a_stage_that_took_several_attempts_is_not_known() -> None:
    def stage(joules: float | None, attempt: int = 1, gpu_seconds: float = 2.0) -> Any:
        ledger, measured = SimpleNamespace(gpu_seconds=gpu_seconds), SimpleNamespace(gpu_joules=joules)
        return SimpleNamespace(ledger=ledger, measured=measured, attempt=attempt)

    assert gpu_joules([stage(10.0), stage(5.0), stage(None, gpu_seconds=0.0)]) == 15.0
    assert gpu_joules([]) == 0
    assert np.isnan(gpu_joules([stage(10.0), stage(None)]))
    assert np.isnan(gpu_joules([stage(10.0), stage(5.0, attempt=2)])), "only the last attempt was seen"
