"""Probes in reports: a separate group everywhere, and how well they predict fine-tuned gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.probe_prediction import CANNOT_TELL, predictions
from pretrain_bench.reports.analysis.published_protocol import difference
from pretrain_bench.reports.analysis.ranks import over_tasks
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.comparison_table import overall_text
from pretrain_bench.reports.tables.cost_table import cost_table
from pretrain_bench.reports.tables.probe_table import COST, probe_table
from pretrain_bench.reports.tables.table_one import table_one
from tests.reports.frames import METHODS, runs_of
from tests.reports.stores import add

SEEDS = 4


def both_protocols(probe: dict[str, float], finetuned: dict[str, float], noise: float = 0.2) -> pd.DataFrame:
    """Runs of two tasks under two protocols: given means per method, with noise per pre-training seed shared by both protocols."""
    rng = np.random.default_rng(0)
    shared = {m: rng.normal(0, noise, (2, SEEDS)) for m in METHODS}
    frames = [
        runs_of({m: means.get(m, 30.0) + shared[m] for m in METHODS}).assign(protocol=protocol)
        for protocol, means in (("finetune", finetuned), ("linear", probe))
    ]
    linear = frames[1].assign(
        conditions=frames[1]["conditions"] + "-linear", family=frames[1]["family"] + "-linear", checkpoint="final"
    )
    linear["score_final"] = linear["score_selected"]
    both = pd.concat([frames[0], linear.assign(score_selected=np.nan)], ignore_index=True)
    return both.assign(features_key="f", features_cpu_seconds=20.0, finetune_cpu_seconds=3.0)


RISING = {m: 30.0 + 3 * place for place, m in enumerate(METHODS)}


def test_probes_are_averaged_with_nothing_else() -> None:
    runs = both_protocols({m: 10.0 for m in METHODS}, {m: 60.0 for m in METHODS})
    assert "protocol" in GROUP and len(runs.groupby(GROUP)) == 4
    found = effects(runs)
    assert {p: round(float(g["mean"].mean())) for p, g in found.groupby("protocol")} == {"finetune": 60, "linear": 10}
    columns = [c for c in table_one(found).columns if c not in ("group", "method")]
    assert len(columns) == 4 and sum("protocol linear" in c for c in columns) == 2
    assert [o.protocol for o in over_tasks(runs)] == ["finetune", "linear"]


def test_a_published_number_stands_beside_no_probe() -> None:
    row = {
        "task": "s3dis-sem", "protocol": "linear", "synthetic": False, "pretrain_dataset": "scannet", "pretrain_synthetic": False,
        "label_percent": 100.0, "train_scenes": 204, "test_scenes": 68, "held_out_scenes": 0, "part_of_test_split": "",
        "metric": "miou_voxel", "mean_over": 13, "voxel_metres": 0.05, "checkpoint": "final", "network_width": 1.0,
        "published_as": "ours", "pretrain_steps": 40_000, "finetune_steps": 20_000,
    }  # fmt: skip
    words = difference(row)
    assert "fine-tuned as a whole" in words and "protocol linear" in words
    assert "fine-tuned as a whole" not in difference(row | {"protocol": "finetune"})


def test_the_probe_table_shows_each_method_against_random_weights() -> None:
    runs = both_protocols(RISING, RISING)
    table = probe_table(effects(runs), runs)
    assert set(table["protocol"]) == {"linear"} and len(table) == 2 * len(METHODS)
    ours = table[table["method"] == "ours"].iloc[0]
    assert "better" in ours["100%"] and "n=4" in ours["100%"] and ours[COST] == "20.0 + 3.0"
    assert probe_table(effects(runs[runs["protocol"] == "finetune"]), runs).empty


@pytest.mark.parametrize(
    ("order", "words"),
    [(1, "more than by chance"), (-1, "opposite")],
)
def test_probes_that_order_methods_as_fine_tuning_does_predict_it(order: int, words: str) -> None:
    (found,) = predictions(both_protocols({m: 50 + order * (v - 50) for m, v in RISING.items()}, RISING))
    assert found.correlation == pytest.approx(order) and found.methods == len(METHODS) and found.panels == 2
    assert words in found.verdict and found.low <= found.correlation <= found.high
    points = found.points.set_index(["task", "method"])
    assert points.loc[("task0", "scratch"), "gain"] == pytest.approx(0)
    assert points.loc[("task0", "ours"), "gain"] == pytest.approx(15, abs=1)


def test_few_methods_few_seeds_and_noise_cannot_tell() -> None:
    runs = both_protocols(RISING, RISING)
    (few,) = predictions(runs[runs["method"].isin(METHODS[:3])])
    assert few.verdict.startswith(CANNOT_TELL) and "5 methods" in few.verdict and few.correlation == pytest.approx(1)
    (one,) = predictions(runs[runs["pretrain_seed"] == 0])
    assert one.verdict.startswith(CANNOT_TELL) and np.isnan(one.low)
    mixed = {
        m: 30.0 + 3 * p
        for p, m in enumerate(("ours", "scratch", "csc", "pointcontrast", "depthcontrast", "supervised"))
    }
    (noisy,) = predictions(both_protocols(mixed, RISING))
    assert noisy.verdict == f"{CANNOT_TELL}: the interval includes zero"
    assert predictions(runs[runs["protocol"] == "linear"]) == []


def test_costs_of_probes_are_in_rows_of_their_own(tmp_path: Path) -> None:
    runs = with_probes(tmp_path)
    table = cost_table(runs)
    assert sorted(table[table["method"] == "ours"]["budget"]) == ["b, p", "b, p, protocol linear"]


def with_probes(folder: Path) -> pd.DataFrame:
    """A store with fine-tunings and linear probes of the same pre-trainings."""
    store = Store(folder)
    for seed in (0, 1):
        for method, score in (("scratch", 0.3), ("ours", 0.4)):
            add(store, method, score + seed / 100, seed)
            add(store, method, score - 0.2 + seed / 100, seed, protocol="linear")
    return load_runs(store)


def test_a_probe_of_a_network_without_colours_is_compared_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    scores = {"scratch": 0.1, "pointcontrast": 0.2, "ours": 0.3}
    for seed in range(3):
        for method, score in scores.items():
            source, seen = (
                "none" if method == "scratch" else "scannet",
                "geometry" if method == "pointcontrast" else "colour",
            )
            for protocol in ("linear", "finetune"):
                add(store, method, score + seed / 100, seed, source=source, protocol=protocol, seen=seen)
    runs = load_runs(store)
    assert runs.groupby("protocol")["conditions"].nunique().eq(1).all()
    found = effects(runs).set_index(["protocol", "method"])["gain"]
    assert found["linear", "pointcontrast"] == pytest.approx(10.0)
    (prediction,) = predictions(runs)
    assert set(prediction.points["method"]) == set(scores)


def test_a_store_with_probes_is_reported(tmp_path: Path) -> None:
    """Both protocols share the pre-trainings of a row, which do not depend on features, and every table names the protocol."""
    runs = with_probes(tmp_path / "runs")
    assert runs.groupby(["method", "pretrain_seed"])["pretrain_keys"].nunique().eq(1).all()
    probes = runs[runs["protocol"] == "linear"]
    assert (probes["features_key"] != "").all() and probes["checkpoint"].eq("final").all()
    assert runs.groupby("method")["pretraining"].nunique().eq(1).all()
    built = build_report(Store(tmp_path / "runs"), tmp_path / "out", page=True, scene_pictures=False)
    assert "probes" in built.files and "protocol linear" in (tmp_path / "out" / "table.md").read_text()
    assert "figures/prediction1" in "".join(map(str, built.files.values()))
    assert "Probes of frozen backbones" in built.files["page"].read_text()
    title = (tmp_path / "out/tables/probes.md").read_text().splitlines()[0]
    assert title.endswith("optimiser steps (each method by its own recipe), fine-tuning none"), "probes take no steps"


def test_failed_features_are_failures_of_their_probes_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in (0, 1):
        for method in ("scratch", "ours"):
            add(store, method, 0.5, seed)
            add(
                store,
                method,
                0.3,
                seed,
                protocol="linear",
                features="crashed" if (method, seed) == ("ours", 1) else "ok",
            )
    from pretrain_bench.reports.analysis.frame import load

    loaded = load(store)
    found = effects(loaded.runs, loaded.failed_pretrainings).set_index(["protocol", "row"])
    assert found.loc[("linear", "ours"), "lost_pretrainings"] == 1 and found.loc[("linear", "ours"), "n"] == 1
    assert found.loc[("finetune", "ours"), "lost_pretrainings"] == 0


def test_a_comparison_is_made_within_a_protocol(tmp_path: Path) -> None:
    from pretrain_bench.reports.analysis.compare import Side, differences, paired

    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for store, better in ((one, 0.0), (two, 0.1)):
        for seed in (0, 1, 2):
            add(store, "ours", 0.5 + seed / 100, seed)
            add(store, "ours", 0.2 + better + seed / 100, seed, protocol="linear")
    pairs, _ = paired(Side("one", one), Side("two", two))
    gaps = differences(pairs).set_index("protocol")["difference"]
    assert gaps["finetune"] == pytest.approx(0) and gaps["linear"] == pytest.approx(10)
    assert overall_text(pairs).splitlines()[1].startswith("Over all cells, protocol linear: B - A +10.0")


def test_a_report_of_a_suite_of_probes_has_its_probes_alone(tmp_path: Path) -> None:
    """Fine-tunings of the same cells belong to another suite; failed feature stages belong to the probes."""
    from pretrain_bench.api.reporting import keys_of_suite

    store = Store(tmp_path / "runs")
    for method in ("scratch", "ours"):
        add(store, method, 0.5)
        add(store, method, 0.3, protocol="linear", features="ok" if method == "ours" else "crashed")
    (tmp_path / "b.yaml").write_text("extends: smoke\nname: b\nversion: 1\n")
    (tmp_path / "p.yaml").write_text("extends: smoke\nname: p\nversion: 1\n")
    common = f"name: s\nversion: 1\nbudget: {tmp_path}/b.yaml\nprofile: {tmp_path}/p.yaml\nmethods: [scratch, ours]\ntasks: [s3dis-sem]\n"
    counted = {}
    for protocol in ("finetune", "linear"):
        (tmp_path / f"{protocol}.yaml").write_text(f"{common}protocols: [{protocol}]\n")
        keys = keys_of_suite(str(tmp_path / f"{protocol}.yaml"), store)
        counted[protocol] = sorted((r.kind, r.method) for r in store.records() if r.key in keys)
    assert counted == {
        "finetune": [("finetune", "ours"), ("finetune", "scratch")],
        "linear": [("features", "scratch"), ("finetune", "ours")],
    }
