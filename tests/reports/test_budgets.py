"""Tables state what was equal for all methods, and what each used."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.compare import Side
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.comparison import build_comparison
from pretrain_bench.reports.page.plotly_figures import plotly_source
from tests.reports.stores import add

ONE_RECIPE = " (one recipe for all methods)"
USED = {
    "optimizer_steps": 20000,
    "samples": 160000,
    "labels": 7,
    "gpu_seconds": 7200.0,
    "cpu_seconds": 3600.0,
    "flops": 3 * 10**15,
}


def runs_with(
    pretrain: tuple[str, float, str], used: tuple[float, float] = (20000, 20000), **more: object
) -> pd.DataFrame:
    """Runs of scratch, without pre-training, and of two methods with the given steps and samples."""
    uniformity, amount, currency = pretrain
    rows = ["scratch", "csc", "ours"]
    frame = pd.DataFrame({"row": rows, "method": rows, "outcome": "ok", "budget": "b", "profile": "p"})
    frame = frame.assign(pretrain_dataset="d", pretraining="x", pretrain_seed=0)
    spent = [0, *used]
    return frame.assign(
        pretrain_uniformity=uniformity, pretrain_amount=[0, amount, amount], pretrain_currency=currency, pretrain_steps=spent,
        pretrain_samples=spent, pretrain_gpu_seconds=spent, pretrain_flops=spent, finetune_uniformity="at_most", finetune_amount=500.0,
        finetune_currency="optimizer_steps", finetune_steps=500, finetune_samples=500, finetune_gpu_seconds=1.0,
        finetune_flops=1.0,
    ).assign(**more)  # fmt: skip


def test_words_name_currency_amount_and_uniformity() -> None:
    after = f", fine-tuning at most 500 optimiser steps{ONE_RECIPE}"
    exact = "budget: pre-training equal, exactly 20,000 optimiser steps"
    assert budget_words(runs_with(("exactly", 20000.0, "optimizer_steps"))) == exact + after
    cap = runs_with(("at_most", 40000.0, "optimizer_steps"), (20000, 40000))
    assert budget_words(cap) == (
        f"budget: pre-training at most 40,000 optimiser steps (each method by its own recipe){after}"
    )
    for currency, amount, words in (
        ("samples_seen", 160000.0, "160,000 samples"),
        ("flops", 2.5e18, "2.5e+18 FLOPs"),
        ("gpu_seconds", 36000.0, "36,000 GPU-seconds"),
    ):
        text = budget_words(runs_with(("exactly", amount, currency)))
        assert text == f"budget: pre-training equal, exactly {words}{after}"


def test_unequal_amounts_are_not_called_equal() -> None:
    short = runs_with(("exactly", 20000.0, "optimizer_steps"), (17000, 20000))
    assert "exactly 20,000 optimiser steps, but NOT EQUAL in use: 17,000 to 20,000" in budget_words(short)
    rounded = runs_with(("exactly", 20000.0, "samples_seen"), (19968, 20000))
    assert "NOT EQUAL" not in budget_words(rounded), "a step takes whole batches"
    flops = ("exactly", 2.5e15, "flops")
    far = runs_with(flops, (2.5e15, 3.1e15), pretrain_steps=[0, 100, 400])
    assert "exactly 2.5e+15 FLOPs, but NOT EQUAL in use: 2.5e+15 to 3.1e+15" in budget_words(far)
    near = runs_with(flops, (2.5e15, 2.54e15), pretrain_steps=[0, 100, 400])
    assert "NOT EQUAL" not in budget_words(near), "a step of csc is 2.5e13 FLOPs, and two are tolerated"
    seconds = runs_with(("exactly", 36000.0, "gpu_seconds"), (36000, 37500), pretrain_steps=[0, 9000, 9000])
    assert "NOT EQUAL" not in budget_words(seconds), "the last checkpoint takes time"
    seconds = runs_with(("exactly", 36000.0, "gpu_seconds"), (36000, 40000), pretrain_steps=[0, 9000, 9000])
    assert "NOT EQUAL in use: 36,000 to 40,000" in budget_words(seconds)
    two = runs_with(("exactly", 20000.0, "optimizer_steps"), pretrain_amount=[0, 10000.0, 20000.0])
    assert "NOT EQUAL: exactly 10,000 optimiser steps or exactly 20,000 optimiser steps" in budget_words(two)
    both = pd.concat([short, short.assign(budget="c", pretrain_uniformity="at_most")])
    words = budget_words(both)
    assert words.startswith("budget b: pre-training equal, ") and "; budget c: pre-training at most" in words
    alone = runs_with(("exactly", 20000.0, "optimizer_steps"))[:1]
    assert budget_words(alone).startswith("budget: pre-training none, fine-tuning"), "scratch trains nothing before"


@pytest.mark.slow
def test_every_table_says_what_was_equal_and_what_was_used(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in "ab"]
    for store in stores:
        store.root.mkdir()
        for percent in (20.0, 100.0):
            for method, source in (("scratch", "none"), ("ours", "scannet")):
                add(store, method, 0.5, source=source, percent=percent, uniformity="exactly", amount=20000, ledger=USED)
    out = tmp_path / "out"
    built = build_report(stores[0], out)
    exactly = (
        "budget: pre-training equal, exactly 20,000 optimiser steps, fine-tuning equal, exactly 20,000 optimiser steps"
    )
    names = [
        "tables/table1",
        "tables/ratios1",
        "tables/cost",
        *(f"groups/{p.name}/table" for p in out.glob("groups/*")),
    ]
    assert len(names) == 5
    for name in names:
        for suffix in (".md", ".tex"):
            assert exactly in (out / name).with_suffix(suffix).read_text(), name
    assert built.text.count(exactly) == 2, "a terminal shows it above each table"
    page = (out / "index.html").read_text().replace(plotly_source(), "")
    assert page.count(f". {exactly}.</p>") == 2
    cost = pd.read_csv(out / "tables/cost.csv").set_index("method")
    used = [pd.read_csv(path).set_index("method") for path in out.glob("groups/*/used.csv")]
    assert len(used) == 2 and page.count("sortable used") == 2
    for table in (cost, *used):
        row = table.loc["ours"]
        assert row["steps"] == "20,000 + 20,000" and row["samples"] == "160,000 + 160,000"
        assert row["FLOPs"] == "3e+15 + 3e+15" and row["labels"] == "7 + 7"
        assert row["GPU-hours"] == "2.000 + 2.000" and row["CPU-hours"] == "1.000 + 1.000"
        assert table.loc["scratch", "samples"] == "0 + 160,000"
    assert {"ours", "scratch"} == {
        r["method"] for p in out.glob("groups/*/used.json") for r in json.loads(p.read_text())
    }
    text = build_comparison(Side("a", stores[0]), Side("b", stores[1]), tmp_path / "compare").text
    assert " ".join(text.split()).count(exactly) == 2, "for A and for B"
