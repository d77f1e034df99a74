"""Contamination by test scenes and official label lists are shown wherever a score is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.harness.audit.contamination import CHECK, LIST_CHECK, check_contamination, check_official_labels
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import read_runs
from pretrain_bench.harness.contract.contamination import contamination_of
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import families
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.titles import contaminated_rows, group_id, group_title, short_group_title
from pretrain_bench.reports.page.matrix import matrix
from pretrain_bench.reports.tables.group_table import group_table
from pretrain_bench.reports.tables.ratio_table import ratio_columns, ratio_table
from pretrain_bench.reports.tables.table_one import table_one
from tests.conftest import Bench
from tests.reports.stores import add, rewrite

SPLIT = {
    "version": 1, "train": ["Area_1__a"], "selection": ["Area_2__a"], "test": ["Area_5__a", "Area_5__b"], "sha256": "1" * 64,
}  # fmt: skip
MARK = "pre-training saw 1 of 2 test scenes"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`ours` read one of the two test rooms; the records predate the field."""
    store = Store(tmp_path / "runs")
    add(store, "scratch", 0.5, source="none", split=SPLIT)
    add(store, "csc", 0.55, split=SPLIT, read=("Area_1__a", "Area_2__a"))
    add(store, "ours", 0.6, split=SPLIT, read=("Area_1__a", "Area_5__a"))
    return store


def of(store: Store, method: str) -> tuple[Record, StageSpec, dict[str, StageSpec]]:
    specs = {r.key: store.spec(r.kind, r.key) for r in store.records()}
    (record,) = [r for r in store.records() if (r.kind, r.method) == ("finetune", method)]
    return record, specs[record.key], specs


def test_cells_and_titles_say_it(store: Store) -> None:
    """For tables, titles and the page of a whole report see `tests/test_test_scenes.py`."""
    runs = load_runs(store).set_index("method")
    assert runs.loc[["scratch", "csc", "ours"], "contamination"].tolist() == ["none", "none", "scenes"]
    table = table_one(effects(load_runs(store))).set_index("method")
    assert MARK in table.loc["ours"].iloc[-1] and "saw" not in table.loc["csc"].iloc[-1]
    group = group_table(load_runs(store)).set_index("method")
    assert group["contamination"].to_dict() == {"scratch": "none", "csc": "none", "ours": MARK}
    expected = f"; not comparable, since pre-training saw test scenes or may have: ours on s3dis-sem ({MARK})"
    assert contaminated_rows(load_runs(store)) == expected


def test_a_run_shows_all_counts(store: Store, bench: Bench) -> None:
    record, spec, specs = of(store, "ours")
    rewrite(store, record, contamination=contamination_of(spec, [specs[k] for k in spec.parents.values()]))
    shown = " ".join(bench("show", record.key, "--runs", str(store.root)).stdout.split())
    assert "test scenes seen in pre-training: 1 of 2 (Area_5__a)" in shown
    assert "selection scenes: 0 of 1; training scenes: 1 of 1" in shown
    assert '"flag": "scenes"' in bench("show", record.key, "--runs", str(store.root), "--json").stdout


def findings(store: Store, method: str, **changes: object) -> dict[str, tuple[str, str]]:
    tally = Tally()
    runs = read_runs(store, tally)
    record, spec, _ = of(store, method)
    run = runs[record.key]._replace(record=record.model_copy(update=changes))
    check_contamination(run, runs, tally)
    check_official_labels(record.model_copy(update=changes), spec, tally)
    return {f.check: (f.verdict, f.detail) for f in tally.all()}


def test_an_audit_computes_it_again(store: Store) -> None:
    assert findings(store, "ours")[CHECK] == ("warning", f"the record is older than this field; the specs give: {MARK}")
    assert CHECK not in findings(store, "csc"), "older, and nothing to say"
    _, spec, specs = of(store, "ours")
    right = contamination_of(spec, [specs[k] for k in spec.parents.values()])
    assert right is not None and findings(store, "ours", contamination=right)[CHECK][0] == "ok"
    hidden = right.model_copy(update={"flag": "none", "test_seen": 0})
    verdict, detail = findings(store, "ours", contamination=hidden)[CHECK]
    assert verdict == "failed" and "the record has none" in detail and "the specs give scenes" in detail


def test_an_official_list_has_its_own_group_and_words(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for labels in (LabelRatio(percent=20), LabelRatio.parse("lr20"), LabelRatio(points=20)):
        add(store, "scratch", 0.5, source="none", labels=labels)
        add(store, "ours", 0.6, labels=labels)
    runs = load_runs(store)
    assert set(runs["label_ratio"]) == {"20%", "scannet-lr20", "20points"}
    assert runs.set_index("label_ratio")["label_percent"].notna().groupby(level=0).all().to_dict() == {
        "20%": True, "scannet-lr20": False, "20points": False,
    }  # fmt: skip
    groups = [dict(zip(GROUP, names, strict=True)) for names, _ in runs.groupby(GROUP)]
    assert len(groups) == 3 and len({group_id(group) for group in groups}) == 3
    (official,) = [group for group in groups if group["label_ratio"] == "scannet-lr20"]
    assert "ScanNet's official list of 20 % of the scans (scannet-lr20)" in group_title(official)
    assert "official scannet-lr20" in short_group_title(official)
    (family,) = families(effects(runs))
    heads = ["20%", "20points", "official scannet-lr20"]
    assert list(ratio_table(family)) == ["method", *heads] and [c.head for c in ratio_columns(family)] == heads
    overview = family.effects.assign(group=family.effects["label_ratio"])
    assert [column["text"] for column in matrix("overview", overview)["columns"]] == heads
    spec = StageSpec.model_validate(of_ratio(store, "scannet-lr20"))
    record = next(r for r in store.records() if r.key == spec.key)
    tally = Tally()
    check_official_labels(record, spec, tally)
    assert [(f.check, f.verdict) for f in tally.all()] == [(LIST_CHECK, "failed"), (LIST_CHECK, "ok")]
    assert tally.all()[0].detail == "its training scenes are not those of scannet-lr20"


def of_ratio(store: Store, ratio: str) -> dict[str, object]:
    record = next(r for r in store.records() if r.cell and str(r.cell.label_ratio) == ratio)
    return store.spec(record.kind, record.key).model_dump(mode="json")
