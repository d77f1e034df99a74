"""Tables and figures across groups, on a store with planted effects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.store import Store
from reports import published
from reports.build import BuiltReport, build_report
from reports.figures import rank_diagram, same_and_other, save
from reports.frame import _joules, load
from reports.interactive import plotly_source
from reports.overview import (
    OTHER,
    SAME,
    across_tasks,
    cost,
    effects,
    latex,
    same_or_other,
    steps_to_reach,
    table_one,
    variances,
    with_source,
)
from reports.statistics import ranking
from tests.conftest import Bench
from tests.reports.planted import GAINS, plant


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


def test_the_variance_of_shared_pretraining_is_told_apart(store: Store) -> None:
    found = variances(load(store).runs)
    assert len(found) > 15 and found["pre-training seed"].mean() > found["fine-tuning seed"].mean()
    assert found["residual is"].eq("interaction of the two seeds (one run a cell)").all()


def test_failures_show_in_every_table(store: Store, built: tuple[BuiltReport, Path]) -> None:
    text = (built[1] / "synthetic-table1.md").read_text()
    ratios = (built[1] / "synthetic-ratios1.md").read_text()
    failed = [r for r in store.records() if r.outcome != "ok"]
    assert failed and ("of 8 failed" in text or "of 8 failed" in ratios)
    assert sum(int(c.split(" of ")[0].split()[-1]) for c in ratios.split("|") if "failed" in c) == len(failed)


def test_every_table_and_figure_in_every_format(built: tuple[BuiltReport, Path]) -> None:
    _, out = built
    for name in ("table1", "ratios1", "cost", "datasets"):
        for suffix in ("md", "tex", "csv"):
            content = (out / f"synthetic-{name}.{suffix}").read_text()
            assert suffix == "csv" or "SYNTHETIC" in content
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


def test_published_numbers_stand_beside_real_results_and_only_on_request_beside_synthetic_ones(tmp_path: Path) -> None:
    real = Store(tmp_path / "real")
    plant(real, 2, 1, synthetic=False)
    found = effects(load(real).runs)
    assert "[paper 66.5]" in table_one(found, with_published=False).to_string()
    made_up = found.assign(synthetic=True)
    assert "[paper" not in table_one(made_up, with_published=False).to_string()
    assert "[paper 69.0]" in table_one(made_up, with_published=True).to_string()
    built = build_report(real, tmp_path / "out")
    assert published.PROTOCOL in (tmp_path / "out/table.md").read_text() and "SYNTHETIC" not in built.text


def test_published_numbers_are_what_the_files_say() -> None:
    assert published.of("s3dis-sem", "ours").value == 66.5  # type: ignore[union-attr]
    assert published.of("sunrgbd-det", "scratch").value == 32.0  # type: ignore[union-attr]
    assert published.of("scannet-sem", "supervised") is None and len(published.table1()) == 37
    assert [r for r, _ in published.ratio_curve("scannet-sem", "scratch")] == [5, 10, 20, 30, 40, 100]


def test_steps_to_reach_by_hand() -> None:
    curves = {
        "scratch": [("scratch", [10, 20, 30], [0.3, 0.5, 0.6])],
        "ours": [("ours", [10, 20, 30], [0.4, 0.595, 0.61]), ("ours", [10, 20, 30], [0.3, 0.4, 0.5])],
    }
    found = steps_to_reach(curves).set_index("method")
    assert found.loc["scratch"].tolist() == ["30", "1 of 1", "1.00x"]
    assert found.loc["ours"].tolist() == ["never", "1 of 2", "-"]
    assert not len(steps_to_reach({"ours": curves["ours"]}))


def test_cost_is_amortised_over_the_runs_of_a_pretraining(store: Store) -> None:
    row = cost(load(store).runs).set_index("method").loc["csc"]
    assert float(row["amortised over its runs"]) == pytest.approx(
        float(row["CPU-hours a pre-training"]) / 10, abs=0.003
    )


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
    import pandas as pd

    text = latex(pd.DataFrame({"a_b": ["50% & \\evil{}", "1 ±2"]}), "x#y")
    assert r"a\_b" in text and r"50\% \& \textbackslash{}evil\{\}" in text and r"1 $\pm$2" in text and r"x\#y" in text
    assert text.count(r"\\") == 3 and r"\toprule" in text


def test_the_command(store: Store, bench: Bench, tmp_path: Path) -> None:
    done = bench("report", "--runs", str(store.root), "--no-page", "--published", "--json")
    files = json.loads(done.stdout)
    assert "page" not in files and Path(tmp_path / files["synthetic-table1"]).is_file()
    assert "paper 65.1" in (tmp_path / files["synthetic-table1"]).read_text()
    empty = bench("report", "--runs", str(store.root), "--suite", "smoke", "--out", "none").stdout
    assert "no fine-tuning runs yet" in empty, "no run of the planted store is of the suite"


METHODS = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")


def effects_of(gains: dict[str, list[float]]) -> Any:
    """As `effects` would give them: one mean and gain for each method and task."""
    import pandas as pd

    rows = []
    for method, values in gains.items():
        for number, gain in enumerate(values):
            rows.append(
                {
                    "task": f"task{number}", "dataset": "d", "label_ratio": "100%", "budget": "b", "profile": "p", "row": method,
                    "method": method, "mean": 40.0 + 5 * number + gain, "gain": np.nan if method == "scratch" else gain,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_over_tasks_a_method_is_better_only_where_enough_tasks_say_so() -> None:
    rng = np.random.default_rng(20261123)
    noise = {m: rng.normal(0, 0.3, 9) for m in METHODS}
    planted = {"scratch": 0.0, "supervised": 6.0, "pointcontrast": 0.0, "csc": 4.0, "depthcontrast": 0.0, "ours": 2.0}
    gains = {m: (planted[m] + noise[m] - noise["scratch"] * (m == "scratch")).tolist() for m in METHODS}
    ((title, over),) = across_tasks(effects_of(gains)).items()
    table = over.table.set_index("method")
    assert title == "Over all tasks, all labels, budget b, profile p" and list(table.index) == list(METHODS)
    assert {m: table.loc[m, "verdict"] for m in ("supervised", "csc", "ours")} == dict.fromkeys(
        ("supervised", "csc", "ours"), "differs"
    )
    assert table.loc["pointcontrast", "verdict"] == table.loc["depthcontrast", "verdict"] == "not distinguishable"
    assert table.loc["supervised", "mean rank"] == "1.0" and table.loc["scratch", "p (Holm)"] == "-"
    assert over.ranks is not None and over.ranks.critical_difference is not None
    few = across_tasks(effects_of({m: v[:4] for m, v in gains.items()}))
    assert set(next(iter(few.values())).table["verdict"]) == {"-", "cannot be tested with this n"}
    assert across_tasks(effects_of({m: v[:1] for m, v in gains.items()})) == {}, "one task is no comparison over tasks"


def test_gains_of_the_same_and_of_another_dataset_are_told_apart(tmp_path: Path) -> None:
    import pandas as pd

    rows = [
        {"method": m, "pretrain_dataset": "synth-scannet", "dataset": d, "gain": g}
        for m in ("ours", "csc")
        for d, g in (("synth-scannet", 3.0), ("synth-s3dis", 1.0), ("scannet", 2.0), ("s3dis", np.nan))
    ]
    known = with_source(pd.DataFrame(rows))
    assert list(known[known["method"] == "ours"]["pre-trained on"]) == [SAME, OTHER, SAME]
    paths = save(same_and_other(known, "Gains"), tmp_path / "same")
    assert all(path.stat().st_size > 1000 for path in paths)
    table = same_or_other(pd.DataFrame(rows)).set_index(["method", "pre-trained on"])
    assert table.loc[("ours", SAME), "gain"] == "+2.5" and table.loc[("ours", OTHER), "cells"] == 1


def test_a_method_that_lacks_a_task_has_no_rank() -> None:
    gains = {m: [float(i) + j for j in range(4)] for i, m in enumerate(METHODS)}
    gains["ours"] = gains["ours"][:2]
    (over,) = across_tasks(effects_of(gains)).values()
    table = over.table.set_index("method")
    assert table.loc["ours", "mean rank"] == "-" and table.loc["ours", "tasks"] == "2 of 4"
    assert "ours" not in over.methods and len(over.methods) == 5


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
