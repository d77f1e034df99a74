"""Tables and figures across groups, on a store with planted effects."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.frame import Curve, _joules, load
from pretrain_bench.reports.analysis.overview import (
    OTHER,
    SAME,
    _group_of,
    across_tasks,
    by_ratio,
    cost,
    effects,
    families,
    methods_as_published,
    same_or_other,
    steps_to_reach,
    table_one,
    variances,
    with_source,
)
from pretrain_bench.reports.analysis.statistics import ranking
from pretrain_bench.reports.analysis.summary import with_hours
from pretrain_bench.reports.build import BuiltReport, build_report
from pretrain_bench.reports.figures.plots import by_method, rank_diagram, same_and_other, save, variance_split
from pretrain_bench.reports.page.interactive import plotly_source
from pretrain_bench.reports.tables.formats import latex
from pretrain_bench.reports.tables.tables import lost_rows
from tests.conftest import Bench
from tests.reports.planted import CLASSES, GAINS, plant
from tests.reports.test_reports import add, lose, rewrite


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = Store(tmp_path_factory.mktemp("planted") / "runs")
    plant(found, pretrain_seeds=4, finetune_seeds=2)
    return found


@pytest.fixture(scope="module")
def built(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltReport, Path]:
    out = tmp_path_factory.mktemp("report")
    return build_report(store, out), out


def test_planted_effects_are_found(store: Store) -> None:
    found = effects(load(store).runs)
    full = found[found["label_ratio"] == "100%"].set_index("method")
    for method, gain in GAINS.items():
        if method != "scratch":
            row = full.loc[method]
            assert row["gain_low"] - 0.5 < gain < row["gain_high"] + 0.5 and row["n"] == 4
    assert full.loc["supervised", "verdict"] == "better"
    assert full.loc["depthcontrast", "verdict"] in ("not distinguishable", "equivalent within 1"), "half a point below"
    assert full.loc["supervised", "probability_of_improvement"] == 1
    assert 0.5 < full.loc["ours", "could_show"] < 6 and 2 < full.loc["ours", "seeds_for_1"] < 60
    few = found[(found["label_ratio"] == "5%") & (found["method"] == "csc")]["gain"].item()
    assert few > full.loc["csc", "gain"] + 1


def test_table_one_says_what_may_be_said(store: Store) -> None:
    table = table_one(effects(load(store).runs), with_published=False).set_index("method")
    (column,) = [c for c in table.columns if c != "group"]
    assert column == "s3dis-sem (s3dis, b, p, selected)"
    assert re.fullmatch(
        r"\d+\.\d ±\d+\.\d \(\+\d\.\d \[\d\.\d, \d\.\d\] better\) n=4(, \d of 8 failed)?",
        table.loc["supervised", column],
    )
    one = load(store).runs.query("pretrain_seed == 0")
    assert re.fullmatch(
        r"\d+\.\d \(\+\d\.\d\) n=1(, \d of 2 failed)?",
        table_one(effects(one), with_published=False).set_index("method").loc["supervised", column],
    )
    assert effects(one)["probability_of_improvement"].isna().all(), "one run is above or below another, and that is all"


def test_the_variance_of_shared_pretraining_is_told_apart(store: Store) -> None:
    found = variances(load(store).runs)
    whole = found[found["missing"] == 0]
    assert len(whole) > 15 and whole["pre-training seed"].mean() > whole["fine-tuning seed"].mean()


def test_a_row_whose_variance_cannot_be_told_apart_says_so(store: Store) -> None:
    found = variances(load(store).runs)
    failed = sum(r.outcome != "ok" for r in store.records())
    assert len(found) == 6 * 5, "every row at every ratio is there"
    assert failed and found["missing"].sum() == failed
    partly = found[found["missing"] > 0]
    assert partly[["pre-training seed", "fine-tuning seed", "residual"]].isna().all().all()
    figure = variance_split(found, "Variance")
    words = [t.get_text() for t in figure.axes[0].texts]
    assert len(words) == len(partly) and all(re.fullmatch(r"not told apart: \d runs? missing", w) for w in words)


def test_failures_show_in_every_table(store: Store, built: tuple[BuiltReport, Path]) -> None:
    text = (built[1] / "synthetic-table1.md").read_text()
    ratios = (built[1] / "synthetic-ratios1.md").read_text()
    failed = [r for r in store.records() if r.outcome != "ok"]
    assert failed and ("of 8 failed" in text or "of 8 failed" in ratios)
    assert sum(int(c.split(" of ")[0].split()[-1]) for c in ratios.split("|") if "failed" in c) == len(failed)


def test_every_table_and_figure_in_every_format(built: tuple[BuiltReport, Path]) -> None:
    _, out = built
    for name in ("table1", "ratios1", "cost", "datasets"):
        for suffix in ("md", "tex"):
            assert "SYNTHETIC" in (out / f"synthetic-{name}.{suffix}").read_text()
        table = pd.read_csv(out / f"synthetic-{name}.csv")
        assert list(table.columns) == list(pd.read_parquet(out / f"synthetic-{name}.parquet").columns)
        assert len(json.loads((out / f"synthetic-{name}.json").read_text())) == len(table) > 1
    for kind in ("table", "reach"):
        for suffix in ("md", "tex", "csv", "json", "parquet"):
            assert len(list(out.glob(f"{kind}-synthetic-s3dis-sem-*.{suffix}"))) == 5
    for name in ("ratios1", "gains", "cost", "variance", "classes2"):
        stem = f"figure-synthetic-{name}"
        assert (out / f"{stem}.png").read_bytes()[:4] == b"\x89PNG" and b"SYNTHETIC" in (
            out / f"{stem}.svg"
        ).read_bytes()
        assert (out / f"{stem}.pdf").read_bytes()[:5] == b"%PDF-" and len(
            (out / f"{stem}.csv").read_text().splitlines()
        ) > 3
    rows = json.loads((out / "synthetic-effects.json").read_text())
    assert len(rows) == 30 and {"mean", "gain_low", "verdict", "n", "could_show"} <= set(rows[0])
    page = (out / "index.html").read_text().replace(plotly_source(), "")
    assert page.count("<figure>") == 5 + 5 and not re.search(r"(src|href)=.https?:", page)


def test_values_per_class_are_means_of_pretrainings_in_per_cent(store: Store, built: tuple[BuiltReport, Path]) -> None:
    """Some runs have crashed, so that a mean over runs is another."""
    shown = pd.read_csv(built[1] / "figure-synthetic-classes2.csv").set_index("method")
    rows = [
        {"method": r.method, "seed": r.cell.pretrain_seed, **{c: r.metrics[f"iou_voxel/{i}_selected"] for i, c in enumerate(CLASSES)}}
        for r in store.records()
        if r.cell and r.outcome == "ok" and str(r.cell.label_ratio) == "100%"
    ]  # fmt: skip
    expected = 100 * pd.DataFrame(rows).groupby(["method", "seed"]).mean().groupby("method").mean()
    assert shown["ceiling"].between(60, 100).all()
    assert np.allclose(shown.loc[expected.index, list(CLASSES)], expected)
    over_runs = 100 * pd.DataFrame(rows).drop(columns="seed").groupby("method").mean()
    assert not np.allclose(over_runs, expected)


def test_the_data_of_scores_and_curves_lie_beside_them(store: Store, built: tuple[BuiltReport, Path]) -> None:
    _, out = built
    scores = pd.concat([pd.read_csv(p) for p in out.glob("scores-*.csv")]).set_index("key")
    curves = pd.concat([pd.read_csv(p) for p in out.glob("curves-*.csv")])
    records = [r for r in store.records() if r.kind == "finetune"]
    assert len(scores) == len(records) and set(scores["checkpoint"]) == {"selected"}
    for record in records:
        score = record.metrics.get("miou_voxel_selected")
        assert np.isclose(scores.loc[record.key, "score"], np.nan if score is None else 100 * score, equal_nan=True)
    assert set(curves["key"]) <= set(scores.index) and set(curves["step"]) == set(range(30, 301, 30))


def test_figures_over_tasks_and_sources_are_of_a_store_with_both(tmp_path: Path) -> None:
    several = Store(tmp_path / "runs")
    plant(several, pretrain_seeds=6, finetune_seeds=1, fail=0, tasks=("s3dis-sem", "scannet-sem"))
    built = build_report(several, tmp_path / "out")
    assert {"figure-synthetic-datasets", "figure-synthetic-ranks1", "synthetic-tasks1"} <= set(built.files)
    gains = pd.read_csv(tmp_path / "out/figure-synthetic-datasets.csv")
    assert set(gains["pre-trained on"]) == {SAME, OTHER}
    assert set(gains.loc[gains["method"] == "supervised", "pre-trained on"]) == {OTHER}
    ranks = pd.read_csv(tmp_path / "out/figure-synthetic-ranks1.csv").set_index("method")
    assert float(ranks.loc["csc", "mean rank"]) < float(ranks.loc["depthcontrast", "mean rank"])
    assert ranks.loc["supervised", "mean rank"] == "-", "it is not applicable to one task"
    table = pd.read_csv(tmp_path / "out/synthetic-table1.csv").set_index("method")
    assert '<span class="soft">not applicable</span>' in (tmp_path / "out/index.html").read_text()
    assert (table == "not applicable").sum().sum() == 1 and not (table == "not run").any().any()
    assert table.loc["supervised", "scannet-sem (scannet, b, p, selected)"] == "not applicable"


def test_published_numbers_stand_beside_real_results_and_only_on_request_beside_synthetic_ones(tmp_path: Path) -> None:
    real = Store(tmp_path / "real")
    plant(real, 2, 1, synthetic=False)
    found = effects(load(real).runs)
    assert "[paper 66.5]" in table_one(found, with_published=False).to_string()
    made_up = found.assign(synthetic=True)
    assert "[paper" not in table_one(made_up, with_published=False).to_string()
    assert "[paper 69.0]" in table_one(made_up, with_published=True).to_string()
    (ratios,) = (by_ratio(family) for family in families(found))
    assert "[paper" not in ratios.to_string(), "the paper has no ratios of this task, and its Table I is of all labels"
    (ratios,) = (by_ratio(f) for f in families(found.assign(task="scannet-sem", dataset="scannet")))
    cells = ratios.set_index("method").loc["ours"]
    figure3 = dict(published.ratio_curve("scannet-sem", "ours"))
    assert all(cells[f"{r:g}%"].endswith(f"[paper {figure3[r]:.1f}]") for r in (5.0, 10.0, 20.0, 40.0, 100.0))
    assert "[paper" not in by_ratio(families(made_up.assign(task="scannet-sem"))[0]).to_string()
    elsewhere = found.assign(pretrain_dataset="semantickitti")
    assert "[paper" not in table_one(elsewhere, with_published=False).to_string(), "the paper pre-trained on ScanNet"
    assert methods_as_published(found) == ["scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours"]
    assert methods_as_published(elsewhere) == [] and methods_as_published(made_up.head(0)) == []
    built = build_report(real, tmp_path / "out")
    assert published.PROTOCOL in (tmp_path / "out/table.md").read_text() and "SYNTHETIC" not in built.text
    (classes,) = (pd.read_csv(p).set_index("method") for p in (tmp_path / "out").glob("figure-classes*.csv"))
    assert classes.loc["ours [paper]", ["ceiling", "chair"]].tolist() == [90.8, 88.48] and "ours" in classes.index
    assert (
        ">paper</" in (tmp_path / "out/index.html").read_text()
        or "ours (paper)" in (tmp_path / "out/index.html").read_text()
    )


def test_published_numbers_are_what_the_files_say() -> None:
    assert published.of("s3dis-sem", "ours").value == 66.5  # type: ignore[union-attr]
    assert published.of("sunrgbd-det", "scratch").value == 32.0  # type: ignore[union-attr]
    assert published.of("scannet-sem", "supervised") is None and len(published.table1()) == 37
    assert [r for r, _ in published.ratio_curve("scannet-sem", "scratch")] == [5, 10, 20, 30, 40, 100]
    assert published.validation_curve("s3dis-sem", 100.0, "csc")[0] == (200, 62.22)
    assert len(published.validation_curve("scannet-sem", 5.0, "ours")) == 19
    assert published.validation_curve("scannet-sem", 20.0, "ours") == ()
    assert published.per_class("s3dis-inst")["ours"]["column"] == 35.0 and published.per_class("kitti-sem") == {}


def test_steps_to_reach_by_hand() -> None:
    curves = {
        "scratch": [Curve("scratch", "a", 0, [10, 20, 30], [0.3, 0.5, 0.6])],
        "ours": [
            Curve("ours", "b", 0, [10, 20, 30], [0.4, 0.595, 0.61]),
            Curve("ours", "c", 1, [10, 20, 30], [0.3, 0.4, 0.5]),
        ],
    }
    found = steps_to_reach(curves).set_index("method")
    assert found.loc["scratch"].tolist() == ["30", "1 of 1", "1.00x"]
    assert found.loc["ours"].tolist() == ["never", "1 of 2", "-"]
    assert not len(steps_to_reach({"ours": curves["ours"]}))
    assert not len(steps_to_reach({**curves, "scratch #b": curves["scratch"]})), "two kinds of scratch give no one goal"
    crashed = steps_to_reach(curves, {"scratch": 1, "ours": 1}).set_index("method")
    assert crashed.loc["scratch"].tolist() == ["never", "1 of 2", "-"]
    assert steps_to_reach(curves, {"scratch": 1}).set_index("method").loc["ours", "speed-up"] == "-"
    sooner = steps_to_reach({**curves, "csc": [Curve("csc", "d", 0, [10], [0.6])]}, {"scratch": 1}).set_index("method")
    assert sooner.loc["csc"].tolist() == ["10", "1 of 1", "-"], "over scratch that never got there there is no speed-up"
    assert crashed.loc["ours", "reached by"] == "1 of 3", "a pre-training that ended badly never got there"


def test_the_unit_of_steps_to_reach_is_the_pretraining() -> None:
    """One run of scratch ends at 40, four of another pre-training at 50: the goal is 44, as the tables' mean is 45."""
    ends = [(0, 0.4), *[(1, 0.5)] * 4]
    curves = {
        "scratch": [Curve("scratch", str(n), seed, [10, 20], [0.1, end]) for n, (seed, end) in enumerate(ends)],
        "ours": [Curve("ours", "o", 0, [10, 20], [0.1, 0.45]), Curve("ours", "p", 0, [10, 20], [0.45, 0.45])],
    }
    found = steps_to_reach(curves).set_index("method")
    assert found.loc["ours"].tolist() == ["15", "1 of 1", "-"] and found.loc["scratch", "reached by"] == "1 of 2"


def test_a_row_that_never_ended_well_is_not_left_out_of_steps_to_reach() -> None:
    curves = {"scratch": [Curve("scratch", "a", 0, [10, 20], [0.3, 0.6])]}
    found = steps_to_reach(curves, {"scratch": 0, "csc": 2}).set_index("method")
    assert found.loc["csc"].tolist() == ["never", "0 of 2", "-"] and found.loc["scratch", "reached by"] == "1 of 1"


def test_methods_of_ones_own_have_a_group_of_their_own_and_may_have_no_source() -> None:
    assert [_group_of(m) for m in ("scratch", "supervised", "csc", "ours", "mine")] == [
        "baseline", "baseline", "multi-scan", "single-scan", "other",
    ]  # fmt: skip
    rows = [{"method": "mine", "pretrain_dataset": d, "dataset": "s3dis", "gain": 1.0} for d in ("none", "scannet")]
    assert list(with_source(pd.DataFrame(rows))["pre-trained on"]) == [OTHER]


def test_a_task_under_two_protocols_is_no_two_tasks() -> None:
    runs = runs_of(planted_scores(2, 3, {}, 0.3))
    assert across_tasks(runs) and across_tasks(runs.assign(task="one")) == {}


def test_a_table_of_label_ratios_and_its_figure_have_one_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for points in (20, 100):
        add(store, "ours", 0.4, budget="a", labels=LabelRatio(points=points))
    for percent in (20.0, 100.0):
        add(store, "ours", 0.5, budget="b", percent=percent)
    build_report(store, tmp_path / "out", page=False)
    of = {p.name: p.read_text() for p in (tmp_path / "out").glob("*ratios*") if p.suffix in (".md", ".csv")}
    assert "budget a" in of["ratios1.md"] and "budget b" in of["ratios2.md"]
    assert "figure-ratios1.csv" not in of, "limited points have no axis of shares"
    assert set(pd.read_csv(tmp_path / "out/figure-ratios2.csv")["budget"]) == {"b"}


def test_gains_under_two_budgets_are_two_figures(tmp_path: Path) -> None:
    two = Store(tmp_path / "runs")
    two.root.mkdir()
    for seed in range(2):
        for budget in ("b", "large"):
            add(two, "scratch", 0.4 + 0.01 * seed, seed, source="none", budget=budget)
            add(two, "ours", 0.5 + 0.02 * seed, seed, budget=budget)
    build_report(two, tmp_path / "out", page=False)
    assert {p.name for p in (tmp_path / "out").glob("figure-gains*.csv")} == {"figure-gains1.csv", "figure-gains2.csv"}
    assert set(pd.read_csv(tmp_path / "out/figure-gains2.csv")["budget"]) == {"large"}
    assert set(pd.read_csv(tmp_path / "out/figure-cost2.csv")["budget"]) == {"large"}


def test_cost_is_amortised_over_the_runs_of_a_pretraining(store: Store) -> None:
    runs = load(store).runs
    row = cost(runs).set_index("method").loc["csc"]
    before, after = (float(part) for part in row["CPU-hours"].split(" + "))
    assert before == pytest.approx(800 / 3600, abs=6e-4) and after == pytest.approx(120 / 3600, abs=6e-4)
    good = ((runs["method"] == "csc") & (runs["outcome"] == "ok")).sum()
    assert float(row["CPU-hours amortised"]) == pytest.approx(after + before * 4 / good, abs=2e-3)
    assert (row["GPU-hours"], row["GPU-hours amortised"]) == ("-", "-"), "no stage used a GPU"
    on_gpu = cost(runs.assign(pretrain_gpu_seconds=3600.0, finetune_gpu_seconds=1800.0)).set_index("method").loc["csc"]
    assert on_gpu["GPU-hours"] == "1.000 + 0.500"
    assert float(on_gpu["GPU-hours amortised"]) == pytest.approx(0.5 + 4 / good, abs=1e-3)


def test_cost_tells_labels_of_pretraining_from_those_of_finetuning(store: Store) -> None:
    runs = load(store).runs.assign(pretrain_labels=4_000_000, finetune_labels=1_500)
    assert set(cost(runs)["labels"]) == {"4,000,000 + 1,500"}


def test_energy_is_given_where_every_gpu_was_measured(store: Store) -> None:
    runs = load(store).runs
    assert set(cost(runs)["GPU Wh"]) == {"-"}, "no stage of the planted store used a GPU"
    seen = runs.assign(pretrain_gpu_joules=7200.0, finetune_gpu_joules=3600.0)
    assert set(cost(seen)["GPU Wh"]) == {"3.0"}
    partly = seen.assign(pretrain_gpu_joules=[float("nan"), *[7200.0] * (len(seen) - 1)])
    assert "-" in set(cost(partly)["GPU Wh"])


def test_energy_of_a_stage_that_took_several_attempts_is_not_known() -> None:
    def stage(joules: float | None, attempt: int = 1, gpu_seconds: float = 2.0) -> Any:
        ledger, measured = SimpleNamespace(gpu_seconds=gpu_seconds), SimpleNamespace(gpu_joules=joules)
        return SimpleNamespace(ledger=ledger, measured=measured, attempt=attempt)

    assert _joules([stage(10.0), stage(5.0), stage(None, gpu_seconds=0.0)]) == 15.0
    assert _joules([]) == 0
    assert np.isnan(_joules([stage(10.0), stage(None)]))
    assert np.isnan(_joules([stage(10.0), stage(5.0, attempt=2)])), "only the last attempt was seen"


def test_latex_is_escaped() -> None:
    text = latex(pd.DataFrame({"a_b": ["50% & \\evil{}", "1 ±2"]}), "x#y")
    assert r"a\_b" in text and r"50\% \& \textbackslash{}evil\{\}" in text and r"1 $\pm$2" in text and r"x\#y" in text
    assert text.count(r"\\") == 3 and r"\toprule" in text and r"\begin{table}" in text and "resizebox" not in text
    wide = latex(pd.DataFrame({"a": ["x" * 50], "b": ["y" * 50]}), "wide")
    assert r"\begin{table*}" in wide and r"\textwidth\else\width\fi}{!}{\begin{tabular}{ll}" in wide
    assert (
        wide.startswith(r"% needs \usepackage{booktabs,graphicx}")
        and r"\end{tabular}}" in wide
        and r"\end{table*}" in wide
    )


def test_the_command(store: Store, bench: Bench, tmp_path: Path) -> None:
    done = bench("report", "--runs", str(store.root), "--no-page", "--published", "--json")
    files = json.loads(done.stdout)
    assert "page" not in files and Path(tmp_path / files["synthetic-table1"]).is_file()
    assert "paper 65.1" in (tmp_path / files["synthetic-table1"]).read_text()
    for suffix in (".md", ".tex"):
        with_protocol = (tmp_path / files["synthetic-table1"]).with_suffix(suffix).read_text()
        assert "best checkpoint on the test split" in with_protocol, "a published number stands beside its protocol"
    said = bench("report", "--runs", str(store.root), "--watch", "--json", code=2).stderr
    assert "leave out --json" in said
    empty = bench("report", "--runs", str(store.root), "--suite", "smoke", "--out", "none").stdout
    assert "none of them of this suite" in empty, "no run of the planted store is of the suite"


METHODS = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")


def runs_of(scores: dict[str, np.ndarray], budget: str = "b") -> Any:
    """Runs as a store would give them: (tasks, pre-training seeds) per cent of each method, NaN where a run failed."""
    rows = []
    for method, table in scores.items():
        for (task, seed), score in np.ndenumerate(table):
            rows.append(
                {
                    "task": f"task{task}", "dataset": "d", "synthetic": False, "label_ratio": "100%", "budget": budget, "profile": "p",
                    "protocol": f"{task}", "family": f"{task}", "method": method, "row": method, "checkpoint": "selected", "pretrain_dataset": "e", "pretraining": method, "pretrain_seed": seed,
                    "finetune_seed": 0, "outcome": "ok" if np.isfinite(score) else "crashed", "score_selected": score / 100,
                    "score_final": score / 100,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def planted_scores(tasks: int, seeds: int, gains: dict[str, float], shared: float) -> dict[str, np.ndarray]:
    """Scores of methods whose pre-trainings move all their tasks by `shared` points (standard deviation), and runs by 0.3."""
    rng = np.random.default_rng(20261126)
    level = 40 + 5 * np.arange(tasks)[:, None]
    return {
        m: level + gains.get(m, 0.0) + rng.normal(0, shared, (1, seeds)) + rng.normal(0, 0.3, (tasks, seeds))
        for m in METHODS
    }


def test_over_tasks_a_method_differs_only_where_enough_pretrainings_say_so() -> None:
    gains = {"supervised": 9.0, "csc": 6.0, "ours": 3.0}
    ((title, over),) = across_tasks(runs_of(planted_scores(4, 5, gains, 0.3))).items()
    table = over.table.set_index("method")
    assert title == "Over all tasks, all labels, budget b, profile p, selected checkpoint" and list(
        table.index
    ) == list(METHODS)
    assert {m: table.loc[m, "verdict"] for m in gains} == dict.fromkeys(gains, "differs")
    assert table.loc["pointcontrast", "verdict"] == table.loc["depthcontrast", "verdict"] == "not distinguishable"
    assert table.loc["supervised", "p (Holm)"] == "<0.001", "no p value is nothing"
    assert table.loc["supervised", "mean rank"] == "1.0" and table.loc["scratch", "p (Holm)"] == "-"
    assert set(table["seeds"]) == {5} and re.fullmatch(
        r"\+\d\.\d \[\+?\d\.\d, \d+\.\d\]", table.loc["csc", "mean gain"]
    )
    assert over.ranks is not None and over.ranks.critical_difference is not None


def test_over_tasks_one_pretraining_is_one_draw_however_many_tasks_it_serves() -> None:
    one = planted_scores(7, 1, {"ours": 5.0}, 0.0)
    (over,) = across_tasks(runs_of(one)).values()
    table = over.table.set_index("method")
    assert set(table["verdict"]) == {"-", "cannot be tested with this n"} and set(table["mean rank"]) == {"-"}
    assert table.loc["ours", "mean gain"] in ("+4.7", "+4.8"), "and no interval"
    rng = np.random.default_rng(1)
    said = 0
    for _ in range(60):
        null = {m: rng.normal(0, 1, (1, 3)) + rng.normal(0, 0.3, (7, 3)) for m in METHODS}
        (over,) = across_tasks(runs_of(null)).values()
        said += "differs" in set(over.table["verdict"])
    assert said <= 9, "5 % of 60, and chance; with the task as unit it is most of them"
    assert across_tasks(runs_of(planted_scores(1, 3, {}, 0.3))) == {}, "one task is no comparison over tasks"


def test_gains_of_the_same_and_of_another_dataset_are_told_apart(tmp_path: Path) -> None:
    rows = [
        {
            "method": m,
            "row": m,
            "pretrain_dataset": "synth-scannet",
            "dataset": d,
            "gain": g,
            "task": "t",
            "label_ratio": "100%",
            "budget": "b",
            "profile": "p",
        }
        for m in ("ours", "csc")
        for d, g in (("synth-scannet", 3.0), ("synth-s3dis", 1.0), ("scannet", 2.0), ("s3dis", np.nan))
    ]
    known = with_source(pd.DataFrame(rows).dropna())
    assert list(known[known["method"] == "ours"]["pre-trained on"]) == [SAME, OTHER, SAME]
    paths = save(same_and_other(known, "Gains"), tmp_path / "same")
    assert all(path.stat().st_size > 1000 for path in paths)
    table = same_or_other(pd.DataFrame(rows)).set_index(["method", "pre-trained on", "budget", "profile"])
    assert (
        table.loc[("ours", SAME, "b", "p"), "gain"] == "+2.5"
        and table.loc[("ours", OTHER, "b", "p"), "cells"] == "1 of 2"
    )
    assert not len(same_or_other(pd.DataFrame(rows).assign(gain=np.nan)))
    both = pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(budget="large", gain=9.0)])
    assert same_or_other(both).set_index(list(table.index.names)).loc[("ours", SAME, "b", "p"), "gain"] == "+2.5"


def test_a_method_that_lacks_a_task_has_no_rank_and_is_compared_on_the_rest() -> None:
    scores = planted_scores(4, 4, {"csc": 3.0, "supervised": 9.0, "ours": 6.0, "depthcontrast": -3.0}, 0.1)
    scores["ours"][2:] = np.nan
    scores["csc"][1, 3] = np.nan
    (over,) = across_tasks(runs_of(scores)).values()
    table = over.table.set_index("method")
    assert table.loc["ours", "mean rank"] == "-" and table.loc["ours", "tasks"] == "2 of 4"
    assert table.loc["ours", "mean gain"].startswith(("+5", "+6")), "the hard tasks that it lacks are no gain"
    assert table.loc["csc", "seeds"] == 3, "the seed that failed at one task is left out, not imputed"
    assert "ours" not in over.methods and len(over.methods) == 5


def test_over_tasks_counts_are_those_of_the_test() -> None:
    """Of the tasks that scratch has too, and of the seeds that have them all; one task is no mean over tasks."""
    scores = planted_scores(3, 4, {"ours": 3.0}, 0.1)
    scores["scratch"][1:] = np.nan
    (over,) = across_tasks(runs_of(scores)).values()
    row = over.table.set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["mean gain"], row["failed"]) == ("1 of 3", 4, "-", "0")
    scores = planted_scores(3, 4, {"ours": 3.0}, 0.1)
    scores["scratch"][2] = np.nan
    scores["ours"][2, 1:] = np.nan
    (over,) = across_tasks(runs_of(scores)).values()
    row = over.table.set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["failed"]) == ("2 of 3", 4, "3 crashed") and "[" in row["mean gain"]
    scores["ours"][:2] = np.nan
    scores["ours"][2] = 40.0
    (over,) = across_tasks(runs_of(scores).assign(outcome="ok")).values()
    row = over.table.set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["failed"]) == ("0 of 3", 0, "8 without a score")


def test_a_pretraining_that_failed_is_missing_in_every_table_across_groups(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    for seed, of in itertools.product(range(3), range(2)):
        add(store, "scratch", 0.4 + 0.01 * seed + 0.002 * of, seed, of, source="none")
        if seed < 2:
            add(store, "ours", 0.5 + 0.01 * seed + 0.003 * of, seed, of)
    lose(store, "ours", 2, "0" * 64)
    loaded = load(store)
    spread = variances(loaded.runs, loaded.lost).set_index("method").loc["ours"]
    assert (spread["seeds"], spread["missing"]) == ("3 x 2", 2) and np.isnan(spread["residual"])
    figure = by_method(loaded.runs, "t", {n: len(r) for n, r in lost_rows(loaded.runs, loaded.lost).items()})
    assert [t.get_text() for t in figure.axes[0].texts] == ["1 pre-training\nfailed"]
    figure = by_method(loaded.runs, "t", {"csc": 2})
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["scratch", "ours", "csc"]


def test_what_was_run_under_two_protocols_is_told_apart(tmp_path: Path) -> None:
    """The code of fine-tuning was changed, say: in no table are the two one cell."""
    store = Store(tmp_path / "runs")
    for seed, of, (voxel, more) in itertools.product(range(2), range(2), ((0.1, 0.0), (0.2, 0.1))):
        add(store, "scratch", 0.4 + 0.01 * seed + 0.002 * of, seed, of, source="none", voxel=voxel)
        add(store, "ours", 0.5 + 0.013 * seed + 0.003 * of + more, seed, of, voxel=voxel)
    loaded = load(store)
    found = effects(loaded.runs)
    (row,) = same_or_other(found).to_dict("records")
    assert (row["gain"], row["cells"]) == ("-", "0 of 1, 1 under two protocols")
    add(store, "scratch", 0.4, source="none", percent=5.0)
    add(store, "ours", 0.6, percent=5.0)
    (row,) = same_or_other(effects(load(store).runs)).to_dict("records")
    assert (row["gain"], row["cells"]) == ("+20.0", "1 of 2, 1 under two protocols")
    spread = variances(loaded.runs)
    assert not spread.duplicated(["method", "task", "label_ratio", "protocol"]).any() and len(spread) == 4
    names = [t.get_text() for t in variance_split(spread, "t").axes[0].get_yticklabels()]
    assert len(set(names)) == 4 and all("#" in name for name in names)
    one = spread[spread["protocol"] == spread["protocol"].iloc[0]]
    assert [t.get_text() for t in variance_split(one, "t").axes[0].get_yticklabels()] == ["scratch, 100%", "ours, 100%"]
    runs = Store(tmp_path / "planted")
    for voxel in (0.1, 0.2):
        add(runs, "ours", 0.5, voxel=voxel)
    for record in list(runs.records()):
        if record.cell:
            metrics = {**record.metrics, **{f"iou_voxel/{i}_{c}": 0.5 for i in range(2) for c in CHECKPOINTS}}
            rewrite(runs, record, metrics=metrics)
    text = build_report(runs, tmp_path / "out").files["page"].read_text()
    titles = set(
        re.findall(
            r"IoU on voxels \(%\) per class: s3dis-sem on s3dis, 100%, budget b, profile p, protocol #\w{6}", text
        )
    )
    assert len(titles) == 2


def test_a_run_whose_pretraining_has_no_record_is_no_way_of_pretraining(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    (key,) = [r.key for r in store.records() if r.kind == "pretrain"]
    shutil.rmtree(store.folder("pretrain", key))
    with pytest.raises(
        WrongUse, match=f"finetune/[0-9a-f]+: no record of pretrain/{key}, from which it started; bench audit"
    ):
        load(store)


def test_gpu_hours_of_runs_of_which_some_used_none_are_no_mean() -> None:
    runs = runs_of({"ours": np.array([[40.0, 41.0]])}).assign(outcome="ok", pretrain_keys=["a", "b"])
    zero = ("steps", "labels", "cpu_seconds", "gpu_seconds", "gpu_joules")
    runs = runs.assign(**{f"{s}_{c}": 3600.0 for s in ("pretrain", "finetune") for c in zero}, peak_memory_mib=1.0)
    (row,) = cost(runs).to_dict("records")
    assert (row["GPU-hours"], row["GPU Wh"]) == ("1.000 + 1.000", "2.0")
    mixed = runs.assign(finetune_gpu_seconds=[3600.0, 0.0], finetune_gpu_joules=[3600.0, 0.0])
    (row,) = cost(mixed).to_dict("records")
    assert {row[c] for c in ("GPU-hours", "GPU-hours amortised", "GPU Wh")} == {"not all on a GPU"}
    assert row["CPU-hours"] == "1.000 + 1.000" and "tasks" not in row
    several = pd.concat([runs, runs.assign(task="other"), runs[:1].assign(method="csc", row="csc")])
    assert [r["tasks"] for r in cost(several).to_dict("records")] == ["1 of 2", "2 of 2"]


def test_over_tasks_nothing_without_spread_is_a_difference() -> None:
    scores = {m: np.full((2, 3), level) for m, level in (("scratch", 0.0), ("ours", 1.2))}
    (over,) = across_tasks(runs_of(scores)).values()
    row = over.table.set_index("method").loc["ours"]
    assert (row["mean gain"], row["p (Holm)"], row["verdict"]) == ("+1.2", "-", "cannot be tested without spread")


def test_nothing_is_reached_where_scratch_has_nothing() -> None:
    curves = {m: [Curve(m, m, 0, [10, 20], [0.0, last])] for m, last in (("scratch", 0.008), ("ours", 0.3))}
    assert not len(steps_to_reach(curves))
    assert len(steps_to_reach({m: [c._replace(scores=[0.0, 0.1])] for m, (c,) in curves.items()})) == 2


def test_hours_in_the_cost_figure_are_those_of_the_cost_table(tmp_path: Path) -> None:
    """One pre-training of 1 h has two fine-tunings, one of 9 h has one: 5 h, not 3.67."""
    runs = runs_of({"ours": np.array([[40.0, 41.0]])})
    runs = pd.concat([runs, runs[:1].assign(finetune_seed=1)]).assign(
        pretrain_keys=["a", "b", "a"], pretrain_cpu_seconds=[3600.0, 9 * 3600.0, 3600.0], pretrain_gpu_seconds=0.0
    )
    found = runs[["budget", "profile", "row"]].drop_duplicates()
    assert with_hours(found, runs)["hours"].tolist() == [5.0]


def test_ranks_are_drawn_only_where_a_test_supports_them(tmp_path: Path) -> None:
    ranks = ranking(np.array([[60 - 4 * m + 0.1 * ((t * m) % 3) for m in range(6)] for t in range(7)]))
    assert ranks is not None and ranks.critical_difference is not None
    paths = save(rank_diagram(list(METHODS), ranks, "Ranks"), tmp_path / "ranks")
    assert all(path.stat().st_size > 1000 for path in paths)
    text = paths[1].read_text()
    assert all(name in text for name in METHODS) or "<path" in text
    flat = ranking(np.array([[50.0 + ((t + m) % 6) for m in range(6)] for t in range(7)]))
    assert flat is not None and flat.critical_difference is None
    with pytest.raises(ValueError, match="supports no ranking"):
        rank_diagram(list(METHODS), flat, "Ranks")


def test_hours_of_a_pretraining_are_those_of_its_budget() -> None:
    scores = planted_scores(2, 2, {}, 0.3)
    runs = pd.concat(
        [
            runs_of(scores, b).assign(pretrain_cpu_seconds=3600.0 * hours, pretrain_gpu_seconds=0.0)
            for b, hours in (("small", 0.01), ("large", 10.0))
        ]
    ).assign(pretrain_keys=lambda r: r["method"] + r["pretrain_seed"].astype(str))
    found = runs[["budget", "profile", "row"]].drop_duplicates()
    assert set(with_hours(found, runs)[["budget", "hours"]].itertuples(index=False, name=None)) == {
        ("small", 0.01),
        ("large", 10.0),
    }
    with_gpu = with_hours(found, runs.assign(pretrain_gpu_seconds=7200.0))
    assert set(with_gpu["hours"]) == {2.0} and set(with_gpu["hours_of"]) == {"GPU-hours"}
    mixed = runs.assign(pretrain_gpu_seconds=[0.0, *[7200.0] * (len(runs) - 1)])
    assert set(with_hours(found, mixed)["hours_of"]) == {"CPU-hours"}
