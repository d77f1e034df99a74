"""Hours, energy and labels of methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.tables.cost_table import cost_table, used_table
from tests.reports.frames import runs_of


def test_cost_is_amortised_over_the_runs_of_a_pretraining(planted_store: Store) -> None:
    runs = load(planted_store).runs
    row = cost_table(runs).set_index("method").loc["csc"]
    before, after = (float(part) for part in row["CPU-hours"].split(" + "))
    assert before == pytest.approx(800 / 3600, abs=6e-4) and after == pytest.approx(120 / 3600, abs=6e-4)
    good = ((runs["method"] == "csc") & (runs["outcome"] == "ok")).sum()
    assert float(row["CPU-hours amortised"]) == pytest.approx(after + before * 4 / good, abs=2e-3)
    assert (row["GPU-hours"], row["GPU-hours amortised"]) == ("-", "-"), "no stage used a GPU"
    on_gpu = (
        cost_table(runs.assign(pretrain_gpu_seconds=3600.0, finetune_gpu_seconds=1800.0)).set_index("method").loc["csc"]
    )
    assert on_gpu["GPU-hours"] == "1.000 + 0.500"
    assert float(on_gpu["GPU-hours amortised"]) == pytest.approx(0.5 + 4 / good, abs=1e-3)


def test_features_are_part_of_the_cost_of_the_probes_that_share_them() -> None:
    """Two pre-trainings of an hour, each with features of half an hour for probes of 6 minutes at two label ratios."""
    runs = runs_of({"ours": np.array([[40.0, 41.0]] * 2)}).assign(task="t", protocol="linear", peak_memory_mib=1.0)
    runs = runs.assign(label_ratio=["5%", "5%", "100%", "100%"], pretrain_keys=[("a",), ("b",)] * 2)
    runs = runs.assign(features_key=["f", "g"] * 2)
    used = ("steps", "samples", "flops", "labels")
    runs = runs.assign(**{f"{stage}_{what}": 1.0 for stage in ("pretrain", "finetune") for what in used})
    costs = {"pretrain": (3600.0, 7200.0), "features": (1800.0, 3600.0), "finetune": (360.0, 0.0)}
    for stage, (seconds, joules) in costs.items():
        gpu_seconds = 0.0 if stage == "finetune" else seconds
        amounts = {"cpu_seconds": seconds, "gpu_seconds": gpu_seconds, "gpu_joules": joules}
        runs = runs.assign(**{f"{stage}_{name}": amount for name, amount in amounts.items()})
    (row,) = cost_table(runs).to_dict("records")
    assert (row["CPU-hours"], row["CPU-hours amortised"]) == ("1.000 + 0.600", "0.850")
    assert (row["GPU-hours"], row["GPU-hours amortised"], row["GPU Wh"]) == ("1.000 + 0.500", "0.750", "3.0")
    (row,) = used_table(runs).to_dict("records")
    assert (row["CPU-hours"], row["GPU-hours"]) == ("1.000 + 0.600", "1.000 + 0.500")


def test_cost_tells_labels_of_pretraining_from_those_of_finetuning(planted_store: Store) -> None:
    runs = load(planted_store).runs.assign(pretrain_labels=4_000_000, finetune_labels=1_500)
    assert set(cost_table(runs)["labels"]) == {"4,000,000 + 1,500"}


def test_energy_is_given_where_every_gpu_was_measured(planted_store: Store) -> None:
    runs = load(planted_store).runs
    assert set(cost_table(runs)["GPU Wh"]) == {"-"}, "no stage of the planted store used a GPU"
    seen = runs.assign(pretrain_gpu_joules=7200.0, finetune_gpu_joules=3600.0)
    assert set(cost_table(seen)["GPU Wh"]) == {"3.0"}
    partly = seen.assign(pretrain_gpu_joules=[float("nan"), *[7200.0] * (len(seen) - 1)])
    assert "-" in set(cost_table(partly)["GPU Wh"])


def test_gpu_hours_of_runs_of_which_some_used_none_are_no_mean() -> None:
    runs = runs_of({"ours": np.array([[40.0, 41.0]])}).assign(outcome="ok", pretrain_keys=["a", "b"])
    zero = ("steps", "samples", "flops", "labels", "cpu_seconds", "gpu_seconds", "gpu_joules")
    runs = runs.assign(**{f"{s}_{c}": 3600.0 for s in ("pretrain", "finetune") for c in zero}, peak_memory_mib=1.0)
    (row,) = cost_table(runs).to_dict("records")
    assert (row["GPU-hours"], row["GPU Wh"]) == ("1.000 + 1.000", "2.0")
    mixed = runs.assign(finetune_gpu_seconds=[3600.0, 0.0], finetune_gpu_joules=[3600.0, 0.0])
    (row,) = cost_table(mixed).to_dict("records")
    assert {row[c] for c in ("GPU-hours", "GPU-hours amortised", "GPU Wh")} == {"not all on a GPU"}
    assert row["CPU-hours"] == "1.000 + 1.000" and "tasks" not in row
    several = pd.concat([runs, runs.assign(task="other"), runs[:1].assign(method="csc", row="csc")])
    assert [r["tasks"] for r in cost_table(several).to_dict("records")] == ["1 of 2", "2 of 2"]
