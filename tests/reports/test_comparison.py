"""`bench report --compare`: equal cells are paired, and cells without a counterpart are listed with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.compare import Side, at_commit, paired
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.comparison import build_comparison
from pretrain_bench.reports.tables.comparison_table import overall_text
from tests.conftest import Bench
from tests.reports.stores import add, lose, rewrite

BASE = (0.40, 0.45, 0.52, 0.38)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Store, Store]:
    """Four seeds of two methods on both sides; B is 2 mIoU better for `ours`, with a little noise, and equal for scratch."""
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    rng = np.random.default_rng(20261123)
    for seed, score in enumerate(BASE):
        add(one, "ours", score, seed)
        add(two, "ours", score + 0.02 + rng.normal(0, 0.001), seed)
        add(one, "scratch", score - 0.1, seed, source="none")
        add(two, "scratch", score - 0.1, seed, source="none")
    return one, two


def test_differences_are_paired(sides: tuple[Store, Store], tmp_path: Path) -> None:
    """Seeds differ by 14 mIoU and B from A by 2: only a paired test can detect this."""
    found = build_comparison(Side("a", sides[0]), Side("b", sides[1]), tmp_path / "out")
    table = found.table.set_index("method")
    ours = table.loc["ours"]
    assert abs(ours["difference"] - 2) < 0.15 and ours["high"] - ours["low"] < 0.8, "unpaired it would be some 15 wide"
    assert ours["verdict"] == "better" and ours["n"] == 4 and ours["equal"] == "0 of 4" and ours["conditions"] == "same"
    assert table.loc["scratch", "verdict"] == "the same" and table.loc["scratch", "equal"] == "4 of 4"
    assert list(found.table["method"]) == ["scratch", "ours"]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {
        ".md", ".tex", ".csv", ".json", ".parquet", ".png", ".svg", ".pdf",
    }  # fmt: skip
    assert all(len(line) <= 125 for line in found.text.splitlines())


def test_over_all_cells_a_pretraining_is_one_unit(sides: tuple[Store, Store], tmp_path: Path) -> None:
    one, two = sides
    text = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").text
    assert "Over all cells: B - A +1.0, n=8 pre-trainings, permutation p 0.125: not distinguishable" in text
    for seed, score in enumerate(BASE):
        for ratio in (5.0, 10.0, 20.0):
            add(one, "scratch", score - 0.2, seed, source="none", percent=ratio)
            add(two, "scratch", score - 0.15, seed, source="none", percent=ratio)
    text = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").text
    assert "n=8 pre-trainings, permutation p 0.008: differs" in text, "more cells of a pre-training are no more units"
    same = overall_text(paired(Side("a", one), Side("a", one))[0])
    assert same == "Over all cells: B - A +0.0, n=8 pre-trainings: the same"
    (few,) = [overall_text(pairs[pairs["pretrain_seed"] < 2]) for pairs in [paired(Side("a", one), Side("b", two))[0]]]
    assert few.endswith("n=4 pre-trainings: cannot be tested with this n")


def test_cells_without_a_counterpart_are_listed(sides: tuple[Store, Store], tmp_path: Path) -> None:
    one, two = sides
    add(one, "csc", 0.5)
    add(two, "ours", 0.0, 7, outcome="crashed", message="no")
    add(one, "ours", 0.6, 7)
    for seed in range(3):
        add(one, "pointcontrast", 0.5, seed)
        add(two, "pointcontrast", 0.0, seed, outcome="crashed", message="no")
        add(one, "depthcontrast", 0.5, seed)
    lose(two, "depthcontrast", 0, "0" * 64)
    table = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table.set_index("method")
    row = table.loc["csc"]
    assert (row["verdict"], row["without twin"], row["A"], row["B"], row["B - A"]) == (
        "no twins", "1 not run in B", "50.0", "-", "-",
    )  # fmt: skip
    assert table.loc["ours", "without twin"] == "1 crashed in B" and table.loc["ours", "n"] == 4, (
        "a failure is not matched, and is not dropped silently"
    )
    assert table.loc["pointcontrast", "without twin"] == "3 crashed in B", (
        "a run that crashes now is distinguished from one that is missing"
    )
    assert table.loc["depthcontrast", "without twin"] == "2 not run in B, 1 pre-training failed in B"
    add(two, "depthcontrast", 0.5, 0, percent=5.0, pretrain_code="1" * 64)
    table = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table
    mended = table[(table["method"] == "depthcontrast") & (table["ratio"] == "100%")].iloc[0]
    assert mended["without twin"] == "3 not run in B", "repaired since, and not run at this ratio yet"


def test_what_records_say_of_a_machine_is_no_markup(sides: tuple[Store, Store], tmp_path: Path) -> None:
    one, two = sides
    for record in list(two.records()):
        told = record.provenance.model_copy(update={"cpu": "<b>x</b> [click](http://e)", "numerics": {}})
        rewrite(two, record, provenance=told)
    text = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").text
    assert "<b>" not in text and "[click](" not in text and "click" in text


def test_other_conditions_are_named(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    add(one, "ours", 0.5)
    add(two, "ours", 0.6, voxel=0.2)
    (row,) = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table.to_dict("records")
    assert (
        row["conditions"] == "differs: recipe, data or code of fine-tuning"
        and row["verdict"] == "cannot be tested with this n"
    )


def test_another_pretraining_is_no_equal_condition(tmp_path: Path) -> None:
    """Fine-tuning is equal on both sides, but it starts from a pre-training with another recipe."""
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    add(one, "ours", 0.5)
    add(two, "ours", 0.6, pretrain_code="1" * 64)
    (row,) = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table.to_dict("records")
    assert row["conditions"] == "differs: recipe, data or code of pre-training" and row["n"] == 1


def test_a_pretraining_that_failed_under_the_budget_of_its_own_side_is_said(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    for seed in range(3):
        add(one, "ours", 0.5 + 0.01 * seed, seed, budget="small")
    add(two, "ours", 0.6, 0, budget="large")
    lose(two, "ours", 1, "0" * 64, budget="large")
    (row,) = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table.to_dict("records")
    assert row["without twin"] == "1 pre-training failed in B, 1 not run in B"


def test_a_cell_that_failed_everywhere_does_not_change_the_checkpoint_of_the_others(sides: tuple[Store, Store]) -> None:
    one, two = sides
    for seed in range(3):
        add(one, "ours", 0.0, seed, outcome="crashed", percent=5.0)
    assert paired(Side("a", one), Side("b", two))[1] == "selected"
    add(one, "csc", 0.5, checkpoints=("final",))
    assert paired(Side("a", one), Side("b", two))[1] == "final", "a good run that lacks it does"


def test_the_same_to_the_last_bit_is_just_that(tmp_path: Path) -> None:
    """In per cent both values round to the same number."""
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    score = next(x for x in np.linspace(0.4, 0.5, 1000) if 100 * x == 100 * np.nextafter(x, 1))
    add(one, "ours", float(score))
    add(two, "ours", float(np.nextafter(score, 1)))
    (row,) = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").table.to_dict("records")
    assert row["equal"] == "0 of 1" and row["verdict"] != "the same"


def test_synthetic_and_real_data_share_no_table_and_no_figure(sides: tuple[Store, Store], tmp_path: Path) -> None:
    one, two = sides
    add(one, "csc", 0.5, synthetic=True, source="synth-scannet")
    add(two, "csc", 0.6, synthetic=True, source="synth-scannet")
    found = build_comparison(Side("a", one), Side("b", two), tmp_path / "out")
    assert list(found.files) == ["compare", "figure-compare", "synthetic-compare", "figure-synthetic-compare"]
    real, made_up = (found.files[name].read_text() for name in ("compare", "synthetic-compare"))
    assert "SYNTHETIC" not in real and "csc" not in real and "n=8 pre-trainings" in real
    assert made_up.count("SYNTHETIC DATA") == 2 and "csc" in made_up and "ours" not in made_up
    assert real in found.text and made_up in found.text
    for suffix in ("csv", "json", "tex", "parquet"):
        assert (tmp_path / f"out/synthetic-compare.{suffix}").stat().st_size


def test_rows_of_one_method_are_distinguished_and_sides_name_their_machines(
    sides: tuple[Store, Store], tmp_path: Path
) -> None:
    one, two = sides
    for seed, score in enumerate(BASE):
        add(one, "ours", score, seed, source="s3dis")
        add(two, "ours", score - 0.05, seed, source="s3dis")
    text = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").text
    rows = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| s3dis")]
    assert rows == ["scratch", "ours (s3dis)", "ours (scannet)"]
    made = provenance({})
    assert f"\nA: 12 runs, {made.cpu}, torch {made.packages['torch']}, commit " in text and "\nB: 12 runs" in text
    for record in list(two.records()):  # as in an anonymous bundle
        rewrite(two, record, provenance=made.model_copy(update={"git_commit": "0123456789ab", "git_dirty": False}))
    text = build_comparison(Side("a", one), Side("b", two), tmp_path / "out").text
    assert text.count(", commit hidden (anonymous bundle)") == 1 and "0123456789" not in text
    assert ", commit hidden (anonymous bundle)" in build_report(two, tmp_path / "report", page=False).text
    with pytest.raises(WrongUse, match="b@01: no runs of that commit; b has runs of: no known commit"):
        at_commit(Side("b", two), "01")


def test_nothing_to_compare_is_wrong_use(sides: tuple[Store, Store], tmp_path: Path) -> None:
    one, _ = sides
    empty = Store(tmp_path / "empty")
    empty.root.mkdir()
    with pytest.raises(WrongUse, match="empty: no fine-tuning runs to compare"):
        build_comparison(Side("a", one), Side("empty", empty), tmp_path / "out")
    add(empty, "csc", 0.5, synthetic=True, source="synth-scannet")
    with pytest.raises(WrongUse, match="no cell in common"):
        build_comparison(Side("a", one), Side("b", empty), tmp_path / "out")
    add(one, "ours", 0.5, voxel=0.2)
    with pytest.raises(
        WrongUse,
        match="ours on s3dis-sem at 100%, seeds 0/0, was run in 2 ways .*commit .*; choose a store or suite that holds only one of them$",
    ):
        paired(Side("a", one), Side("a", one))
    assert not (tmp_path / "out").exists()


def test_one_store_before_and_after_a_commit(tmp_path: Path, bench: Bench) -> None:
    """The code of a method changed and the suite was rerun into the same store: unchanged stages were not rerun."""
    store = Store(tmp_path / "runs")
    commits = {"0" * 64: "a1" + "0" * 38, "1" * 64: "b2" + "0" * 38}
    for seed, score in enumerate(BASE):
        add(store, "ours", score, seed, pretrain_code="0" * 64)
        add(store, "ours", score + 0.02 + 0.001 * seed, seed, pretrain_code="1" * 64)
        add(store, "scratch", score - 0.1, seed, source="none")
    after = {s.key for r in store.records() if (s := store.spec(r.kind, r.key)).code_sha256 == "1" * 64}
    for record in list(store.records()):
        new = record.key in after or bool(set(record.parents.values()) & after)
        made = record.provenance.model_copy(
            update={"git_commit": commits[("1" if new else "0") * 64], "git_dirty": new}
        )
        rewrite(store, record, provenance=made)
    said = bench("report", "--compare", "runs", "runs", "--out", "out", code=2).stderr
    assert "commit a100000000, b200000000 with changes" in said and "NAME@COMMIT" in said
    done = bench("report", "--compare", "runs@a1", "runs@b2", "--out", "out").stdout
    assert "B (runs@b2) against A (runs@a1)" in done and "A: 8 runs" in done and "commit a100000000\n" in done
    scratch, row = json.loads((tmp_path / "out/compare.json").read_text())
    assert scratch["without twin"] == "4 not run at that commit in B" and scratch["verdict"] == "no twins"
    assert row["n"] == 4 and abs(row["difference"] - 2.15) < 1e-9 and row["conditions"].endswith("of pre-training")
    for wrong in ("runs@c3", "runs@"):
        said = bench("report", "--compare", "runs@a1", wrong, code=2).stderr
        assert f"{wrong}: no runs of that commit; runs has runs of: a100000000, b200000000\n" in said
    for record in list(store.records()):
        if record.key in after:
            made = record.provenance.model_copy(update={"git_commit": "a2" + "0" * 38})
            rewrite(store, record, provenance=made)
    with pytest.raises(WrongUse, match="runs@a: several commits; runs has runs of: a100000000, a200000000"):
        at_commit(Side("runs", store), "a")
    (tmp_path / "my@dir").mkdir()
    (tmp_path / "my@dir/own.yaml").write_text("budget: [\n")
    said = bench("report", "--compare", "runs@a1", "my@dir/own.yaml", code=2).stderr
    assert "my@dir/own.yaml" in said and "unknown suite" not in said, "a file, and no commit of a suite `my`"


def test_the_command(sides: tuple[Store, Store], bench: Bench, tmp_path: Path) -> None:
    done = bench("report", "--compare", "a", "b", "--out", "out")
    assert "B (b) against A (a)" in done.stdout and "the same" in done.stdout
    files = json.loads(bench("report", "--compare", "a", "b", "--out", "out", "--json").stdout)
    assert (tmp_path / files["compare"]).read_text() in done.stdout and "\\" not in done.stdout
    said = bench("report", "--compare", "a", "b", "--suite", "tiny", "--watch", code=2).stderr
    assert "--suite, --watch: cannot be combined with --compare" in said
    assert "unknown suite 'c'" in bench("report", "--compare", "a", "c", code=2).stderr
