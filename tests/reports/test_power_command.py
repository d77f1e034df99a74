"""`bench power`, and the advice of `bench plan` about the seeds of a suite."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.api import power
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.columns import GROUP
from tests.conftest import Bench
from tests.reports.stores import add


@pytest.mark.slow
def test_seeds_and_their_cost_are_printed(planted_store: Store, bench: Bench) -> None:
    root = str(planted_store.root)
    done = bench("power", root, "--effect", "2", "--task", "s3dis-sem")
    assert (
        "true difference of 2 at 80 % power" in done.stdout
        and "own: the seeds needed if each has its own" in done.stdout
    )
    rows = json.loads(bench("power", root, "--effect", "2", "--json").stdout)
    assert {r["method"] for r in rows} == {"supervised", "pointcontrast", "csc", "depthcontrast", "ours"}
    assert {r["label_ratio"] for r in rows} == {"5%", "10%", "20%", "40%", "100%"} and {
        r["protocol"] for r in rows
    } == {"finetune"}
    known = [r for r in rows if r["pre-training seed"] is not None]
    assert known and all(r["seeds_own"] >= r["seeds"] > 1 and r["hours"] > 0 for r in known)
    one = json.loads(bench("power", root, "--json").stdout)
    assert all(a["seeds"] > b["seeds"] for a, b in zip(one, rows, strict=True) if a["seeds"] and b["seeds"] > 2)


def test_wrong_questions_are_refused(planted_store: Store, bench: Bench) -> None:
    root = str(planted_store.root)
    assert (
        "no runs of that task; there are runs of: s3dis-sem"
        in bench("power", root, "--task", "kitti-sem", code=2).stderr
    )
    assert "--effect 0: expected points above 0" in bench("power", root, "--effect", "0", code=2).stderr
    assert "no such folder of runs" in bench("power", "nowhere", code=2).stderr


def test_the_folder_on_the_command_line_comes_before_other_settings(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bench.yaml").write_text("runs: elsewhere\n")
    assert "empty: no method has runs beside scratch's" in bench("power", "empty").stdout
    monkeypatch.setenv("BENCH_RUNS", "nowhere")
    assert "empty: no method has runs beside scratch's" in bench("power", "empty").stdout
    assert "empty and --runs other: name one of them" in bench("power", "empty", "--runs", "other", code=2).stderr
    assert "empty: no method has runs beside scratch's" in bench("power", "empty", "--runs", "empty").stdout


def test_a_store_without_results_has_the_columns(planted_store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    empty, found = pb.power(tmp_path / "runs").seeds, pb.power(planted_store, tasks="s3dis-sem").seeds
    assert len(empty) == 0 < len(found) and list(empty["seeds"]) == [] and list(empty.columns) == list(found.columns)
    explained = Path(power.__file__).read_text().split("class Power")[1].split("def power(")[0]
    assert {c for c in found.columns if c not in GROUP} <= set(re.findall(r"`([\w -]+)`", explained))


def test_a_plan_says_what_its_seeds_can_show(planted_store: Store, tmp_path: Path) -> None:
    def planned(seeds: int, protocol: str = "finetune", own: bool = False) -> Any:
        cells = [
            Cell(
                method="ours", pretrain_dataset="scannet", task="s3dis-sem", label_ratio=LabelRatio(percent=5), pretrain_seed=seed,
                budget="b", profile="p", protocol=protocol, finetune_seed=seed if own else 0,
            )
            for seed in range(seeds)
        ]  # fmt: skip
        waiting = [SimpleNamespace(cell=cell) for cell in cells]
        return SimpleNamespace(
            cells=[], waiting=waiting, budget=SimpleNamespace(name="b"), profile=SimpleNamespace(name="p")
        )

    (few,), (many,) = (pb.power_of_plan(planned(n), planted_store.root) for n in (2, 20))
    assert few.startswith("s3dis-sem at 5%, finetune: 2 pre-training seeds find differences of ")
    largest = [float(line.split(" to ")[1].split(" points")[0]) for line in (few, many)]
    assert largest[1] < largest[0] / 3 and few.split("; ")[1] == many.split("; ")[1]
    assert pb.power_of_plan(planned(2, "linear"), planted_store.root) == [], "no runs of that protocol"
    assert pb.power_of_plan(planned(2), "nowhere") == []
    with_seed = Store(tmp_path / "runs")
    with_seed.root.mkdir()
    for seed, number in itertools.product(range(4), range(2)):
        for method, source in (("scratch", "none"), ("ours", "scannet")):
            add(with_seed, method, 0.4 + 0.002 * seed + 0.05 * number, seed, number, source=source, percent=5)
    shared, separate = (pb.power_of_plan(planned(4, own=own), with_seed.root)[0] for own in (False, True))
    differences = [float(line.split(" to ")[1].split(" points")[0]) for line in (shared, separate)]
    assert differences[1] > 5 * differences[0], "with own seeds the effect of fine-tuning seeds does not cancel"


@pytest.mark.parametrize("wrong", [["--stop-when-decided", "pocock", "--method", "scratch", "--task", "s3dis-sem"]])
def test_a_decision_needs_a_suite(wrong: list[str], bench: Bench) -> None:
    assert "takes the seeds of a --suite" in bench("run", *wrong, "--budget", "smoke", code=2).stderr
