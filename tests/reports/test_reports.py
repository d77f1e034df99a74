"""Statistics, tables, figures and the page, on stores made by hand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.api import reporting
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.cli import report as report_command
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning import stage_specs as graph
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.store import Store, write_json
from pretrain_bench.reports.analysis.frame import GROUP, NO_DATASET, FailedPretraining, load, load_runs, named
from pretrain_bench.reports.analysis.overview import by_ratio, effects, families
from pretrain_bench.reports.analysis.statistics import difference, estimate, verdict
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.export.loggers import export
from pretrain_bench.reports.figures.plots import by_method
from pretrain_bench.reports.page.interactive import plotly_source
from pretrain_bench.reports.tables.formats import markdown, plain
from pretrain_bench.reports.tables.tables import compare, lost_rows

SPLIT = {"version": 1, "train": ["a"], "selection": ["b"], "test": ["c"], "sha256": "1" * 64}


def stage(kind: str, method: str, seed: int, voxel: float = 0.1, **more: object) -> StageSpec:
    plain_spec = {
        "kind": kind, "method": method, "stage": "finetune" if kind == "finetune" else "points", "seed": seed, "profile": "p",
        "profile_version": 1, "network": {}, "threads": 1, "sparse_backend": "torch", "device": "cpu", "code_sha256": "0" * 64,
        "limits": {"budget": "b", "budget_version": 1, "currency": "optimizer_steps", "amount": 1, "schedule_horizon": "budget"},
    }  # fmt: skip
    if kind == "finetune":
        plain_spec |= {
            "task": "s3dis-sem",
            "split": SPLIT,
            "recipe": {"steps": 1, "batch": 1, "micro_batch": 1, "voxel_metres": voxel, "validate_every": 1},
            "data": {
                "dataset": "s3dis",
                "manifest_sha256": "2" * 64,
                "synthetic": False,
                "view": "labelled",
                "classes": ["x", "y"],
            },
        }
    return StageSpec.model_validate({**plain_spec, **more})


def add(
    store: Store, method: str, score: float, pretrain_seed: int = 0, finetune_seed: int = 0, *, outcome: str = "ok",
    synthetic: bool = False, source: str = "scannet", voxel: float = 0.1, message: str = "", percent: float = 100.0,
    notes: dict[str, str] | None = None, checkpoints: tuple[str, ...] = CHECKPOINTS, labels: LabelRatio | None = None,
    budget: str = "b", pretrain_code: str = "0" * 64, split: dict[str, object] = SPLIT,
) -> None:  # fmt: skip
    labels = labels or LabelRatio(percent=percent)
    limits = {
        "budget": budget, "budget_version": 1, "currency": "optimizer_steps", "amount": 1, "schedule_horizon": "budget",
    }  # fmt: skip
    parent = stage(
        "pretrain",
        method,
        pretrain_seed,
        code_sha256=pretrain_code,
        data={"dataset": source, "manifest_sha256": "3" * 64, "synthetic": synthetic, "view": "unlabelled"},
        limits=limits,
    )
    child = stage(
        "finetune",
        method,
        finetune_seed,
        voxel,
        parents={"points": parent.key},
        label_ratio=labels,
        limits=limits,
        split=split,
    )
    cell = Cell(
        method=method, pretrain_dataset=source, task="s3dis-sem", label_ratio=labels,
        pretrain_seed=pretrain_seed, finetune_seed=finetune_seed, budget=budget, profile="p",
    )  # fmt: skip
    metrics = {f"miou_voxel_{c}": score for c in checkpoints} if outcome == "ok" else {}
    for spec, extra in (
        (parent, {}),
        (
            child,
            {
                "cell": cell,
                "dataset": "s3dis",
                "metrics": metrics,
                "outcome": outcome,
                "message": message,
                "notes": notes or {},
            },
        ),
    ):
        base = {
            "key": spec.key, "kind": spec.kind, "method": spec.method, "stage": spec.stage, "attempt": 1, "outcome": "ok",
            "synthetic": synthetic, "executor": "local", "label_isolation": "none", "provenance": provenance({}),
            "parents": spec.parents, "started_at": "2026-01-01", "ended_at": "2026-01-01",
        }  # fmt: skip
        folder = store.folder(spec.kind, spec.key)
        write_json(folder / "spec.json", spec.model_dump(mode="json"))
        write_json(folder / "record.json", Record.model_validate({**base, **extra}).sealed().model_dump(mode="json"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def only_group(store: Store):
    runs = load_runs(store)
    groups = [g for _, g in runs.groupby(GROUP)]
    assert len(groups) == 1
    return groups[0]


def test_one_run_has_no_interval() -> None:
    one = estimate(np.array([0.5]))
    assert one.mean == 0.5 and np.isnan([one.low, one.high]).all() and one.n == 1
    assert verdict(difference(np.array([0.5]), np.array([0.4, 0.3]))) == "cannot be tested with this n"
    assert estimate(np.array([])).n == 0


def test_few_runs_have_a_t_interval() -> None:
    from scipy import stats

    values = np.array([1.0, 2.0, 4.0])
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert np.allclose([found.low, found.high], [low, high])


def test_many_runs_have_a_seeded_bootstrap() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    one, two = estimate(values), estimate(values)
    assert one == two and one.low < values.mean() < one.high


@pytest.mark.parametrize(("shift", "said"), [(3.0, "better"), (-3.0, "worse"), (0.05, "not distinguishable")])
def test_verdicts(shift: float, said: str) -> None:
    rng = np.random.default_rng(1)
    base, ours = rng.normal(0, 0.5, 6), rng.normal(shift, 0.5, 6)
    assert verdict(difference(ours, base)) == said


def test_finetuning_seeds_are_averaged_before_anything_is_inferred(store: Store) -> None:
    for pretrain in range(2):
        for finetune in range(5):
            add(store, "ours", 0.5 + 0.1 * pretrain + 0.01 * finetune, pretrain, finetune)
            add(store, "scratch", 0.4 + 0.01 * finetune + 0.02 * pretrain, pretrain, finetune, source="none")
    table = compare(only_group(store)).set_index("method")
    assert table.loc["ours", "n"] == 2, "ten runs, but two pre-trainings"
    assert table.loc["ours", "final"].startswith("57.0 [")
    assert table.loc["ours", "to scratch"].startswith("+14.0 [")


def test_failures_are_cells_and_never_dropped(store: Store, tmp_path: Path) -> None:
    add(store, "scratch", 0.4, source="none")
    add(store, "ours", 0.0, outcome="crashed", message="it broke")
    add(store, "ours", 0.0, 1, outcome="oom_host")
    table = compare(only_group(store)).set_index("method")
    assert (table.loc["ours", "n"], table.loc["ours", "final"]) == (0, "-")
    assert set(table.loc["ours", "failed"].split(", ")) == {"1 crashed", "1 oom_host"}
    text = build_report(store, tmp_path / "out").text
    assert "1 crashed" in text and "it broke" in (tmp_path / "out/index.html").read_text()


def test_synthetic_and_real_never_meet(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.5)
    add(store, "ours", 0.9, synthetic=True, source="synth-scannet")
    report = build_report(store, tmp_path / "out")
    sections = [s for s in report.text.split("s3dis-sem on ")[1:]]
    assert len(sections) == 2 and sum("50.0" in s for s in sections) == 1 and sum("90.0" in s for s in sections) == 1
    assert report.text.count("**SYNTHETIC DATA**: ") == 1
    pictures = sorted(p.name for p in (tmp_path / "out").glob("scores-*.png"))
    assert len(pictures) == 2 and sum("synthetic" in p for p in pictures) == 1
    assert "<title>SYNTHETIC DATA" in (tmp_path / "out/index.html").read_text()


def test_runs_of_another_protocol_or_source_are_not_averaged(store: Store) -> None:
    add(store, "ours", 0.5)
    add(store, "ours", 0.9, source="rgbd-folder")
    table = compare(only_group(store))
    assert sorted(table["method"]) == ["ours (rgbd-folder)", "ours (scannet)"] and set(table["n"]) == {1}
    add(store, "ours", 0.1, voxel=0.2)
    assert load_runs(store)["protocol"].nunique() == 2
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
    (table,) = (by_ratio(family) for family in families(effects(runs)))
    table = table.set_index("method")
    assert table.loc["ours (scannet)", "5%"].startswith("40.0") and table.loc["ours (scannet)", "100%"].startswith(
        "50.0"
    )
    assert table.loc["ours (rgbd-folder)", "100%"] == "not run"
    lost = [
        FailedPretraining("b", "p", False, "csc", "rgbd-folder", 0, "k"),
        FailedPretraining("b", "p", True, "ours", "scannet", 0, "k"),
    ]
    again, renamed = named(runs, lost)
    assert set(again["row"]) == {"scratch", "ours (scannet)", "ours (rgbd-folder)", "csc (scannet)"}
    assert [one.row for one in renamed] == ["csc (rgbd-folder)", "ours"], "synthetic runs are named by themselves"


def test_all_ratios_of_a_task_are_judged_by_one_checkpoint(store: Store) -> None:
    for method, source in (("scratch", "none"), ("ours", "scannet")):
        add(store, method, 0.5, source=source)
        add(store, method, 0.4, source=source, percent=5.0)
    assert set(load_runs(store)["checkpoint"]) == {"selected"}
    add(store, "csc", 0.3, percent=5.0, checkpoints=("final", "best"))  # too few scenes to hold one out
    assert set(effects(load_runs(store))["checkpoint"]) == {"final"}
    add(store, "depthcontrast", 0.0, percent=5.0, outcome="crashed")
    assert set(load_runs(store)["checkpoint"]) == {"final"}


def test_untrusted_text_is_escaped(store: Store, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\n# heading | \x1b[31m"
    add(store, "ours", 0.0, outcome="crashed", message=evil, notes={"<script>k": "<img src=x onerror=alert(1)>"})
    build_report(store, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    own = page.replace(plotly_source(), "")
    assert own.count("<script") == 3 and "<img src=x" not in own, "nothing of a run is markup"
    assert "\\u003cscript>alert(1)" in own and own.count("</script") == 3
    assert plain(evil) == "&lt;script&gt;alert(1)&lt;/script&gt; # heading \\| [31m"
    assert plain("a [x](javascript:y) [b][c] [d]: e *f* `g`") == (
        r"a [x\](javascript:y) [b\][c] [d\]: e \*f\* \`g\`"
    ), "no link, no emphasis, no code"


def test_the_end_of_a_log_is_on_the_page_without_anybodys_home(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.0, outcome="crashed", message="no")
    (key,) = [r.key for r in store.records() if r.kind == "finetune"]
    lines = [f"line {i}" for i in range(50)] + [
        'File "/home/ann/x.py"',
        "/Users/bob: no",
        "/root/y",
        "\x1b[31mred</script>",
    ]
    (store.folder("finetune", key) / "log.txt").write_text("\n".join(lines))
    build_report(store, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    text = page.split('id="data">')[1].split("</script>")[0]
    (log,) = [r["log"] for r in json.loads(text)["runs"] if r.get("log")]
    assert log.splitlines()[-4:] == ['File "~/x.py"', "~: no", "~/y", " [31mred</script>"]
    assert log.splitlines()[0] == "line 42", "twelve lines"


def test_an_empty_store_says_so(store: Store, tmp_path: Path) -> None:
    report = build_report(store, tmp_path / "out")
    assert "There are no fine-tuning runs yet" in report.text
    assert "There are no fine-tuning runs yet" in (tmp_path / "out/index.html").read_text()


def test_the_csv_has_a_row_a_method_and_names_its_group(store: Store, tmp_path: Path) -> None:
    import pandas as pd

    add(store, "ours", 0.5)
    add(store, "scratch", 0.4, source="none")
    frame = pd.read_csv(build_report(store, tmp_path / "out").files["csv"])
    assert list(frame["method"]) == ["scratch", "ours"] and set(frame["task"]) == {"s3dis-sem"}
    assert frame.loc[1, "verdict"] == "cannot be tested with this n"
    assert markdown(compare(only_group(store))).count("\n") == 3


def test_reports_are_reproducible(store: Store, tmp_path: Path) -> None:
    for seed, score in enumerate((0.5, 0.52, 0.51)):
        add(store, "ours", score, seed)
    add(store, "scratch", 0.4, source="none")
    for number, name in enumerate(("one", "two")):
        np.random.seed(number)  # as two processes would be
        build_report(store, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 7), ("seed", -1), ("seed", True), ("parents", ["points"]), ("parents", {"points": 1})]
)
def test_specs_that_runs_share_are_still_checked_one_by_one(store: Store, field: str, value: object) -> None:
    """Thousands of specs differ in seed and parents alone and are validated once; each still has to give its run's key."""
    for seed in range(3):
        add(store, "ours", 0.5, 0, seed)
    specs = load(store).specs
    assert len({id(specs[r.key]) for r in store.records() if r.kind == "finetune"}) == 1
    last = [r.key for r in store.records()][-1]
    path = store.folder("finetune", last) / "spec.json"
    write_json(path, {**json.loads(path.read_text()), field: value})
    with pytest.raises(WrongUse, match=r"spec\.json"):
        load(store)


def test_a_record_counts_as_it_was_sealed_however_it_is_laid_out(store: Store) -> None:
    add(store, "ours", 0.5)
    path = next(store.root.glob("finetune/*/record.json"))
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(plain.items()))))
    assert [r.method for r in store.records()] == ["ours", "ours"]
    path.write_text(json.dumps({**plain, "method": "csc"}))
    with pytest.raises(WrongUse, match="does not match its own hash"):
        list(store.records())


def test_records_read_back_as_they_were(store: Store) -> None:
    add(store, "ours", 0.5)
    (record,) = [r for r in store.records() if r.kind == "finetune"]
    path = store.folder("finetune", record.key) / "record.json"
    assert Record.model_validate(json.loads(path.read_text())) == record and record.outcome == Outcome.ok


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
    one = (tmp_path / "out/table1.md").read_text()
    assert "n=2, 1 pre-training failed" in one and "| 3 pre-trainings failed" in one
    assert built.text.count("Pre-training failed") == 4
    group = load_runs(store)
    ((digest,),) = set(group.loc[group["method"] == "ours", "pretrain_stages"])
    ours = [
        FailedPretraining("b", "p", False, "ours", "scannet", seed, f"key{seed}", digest, "ours") for seed in (0, 2)
    ]
    assert lost_rows(group, ours) == {"ours": [ours[1]]}, "seed 0 has a run, after a repair say"
    assert not lost_rows(group, [ours[1]._replace(budget="other")]) and not lost_rows(
        group, [ours[1]._replace(synthetic=True, pretrain_dataset="synth-scannet")]
    )
    assert lost_rows(group.assign(synthetic=True), [ours[1]]), "a real pre-training, for a task on a stand-in"
    twice = [ours[1], ours[1]._replace(key="again")]
    assert len(lost_rows(group, twice)["ours"]) == 1, "a seed that failed under two versions of the code is one"
    without_data = FailedPretraining("b", "p", None, "scratch", "none", 7, "k", row="scratch")
    assert lost_rows(group, [without_data]) == {"scratch (none)": [without_data]}, "real or synthetic is not told by it"
    assert lost_rows(group.assign(synthetic=True), [without_data]), "and counts for both"
    assert not lost_rows(group, [FailedPretraining("b", "p", False, "supervised", "s3dis", 0, "k")]), (
        "not applicable there"
    )


def rewrite(store: Store, record: Record, **changes: object) -> None:
    """Put a record into a store with something changed, sealed again."""
    changed = record.model_copy(update=changes).sealed()
    write_json(store.folder(record.kind, record.key) / "record.json", changed.model_dump(mode="json"))


def lose(store: Store, method: str, seed: int, code: str, budget: str = "b") -> None:
    """A pre-training that crashed, of code of its own."""
    add(store, method, 0.5, seed, pretrain_code=code, budget=budget)
    (child,) = [
        r
        for r in store.records()
        if r.cell and (r.method, r.cell.pretrain_seed) == (method, seed) and _code_of(store, r) == code
    ]
    (key,) = child.parents.values()
    shutil.rmtree(store.folder("finetune", child.key))
    (record,) = [r for r in store.records() if r.key == key]
    rewrite(store, record, outcome=Outcome.crashed, metrics={})


def _code_of(store: Store, record: Record) -> str:
    (parent,) = record.parents.values()
    return store.spec("pretrain", parent).code_sha256


def test_a_failed_pretraining_counts_where_it_was_trained_in_the_same_way(tmp_path: Path) -> None:
    """Old code has three seeds, new code two and a crash: the crash is the new code's."""
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
    table = compare(loaded.runs, lost=loaded.lost).set_index("method")
    failed = dict(zip(table["n"], table["failed"], strict=True))
    assert len(table) == 3 and failed[2] == "1 pre-training" and set(table.loc[table["n"] == 3, "failed"]) == {"0"}
    lose(store, "ours", 7, "2" * 64)
    loaded = load(store)
    table = compare(loaded.runs, lost=loaded.lost).set_index("method")
    (own,) = table.index[(table["n"] == 0).to_numpy()]
    assert own == "ours, other code or recipe" and table.loc[own, "failed"] == "1 pre-training", (
        "in a third way: a row of its own"
    )


def test_a_run_without_a_score_is_a_failure(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "csc", 0.5, 0)
    add(store, "csc", 0.5, 1, checkpoints=("best",))
    loaded = load(store)
    (row,) = compare(loaded.runs).to_dict("records")
    assert (row["n"], row["failed"]) == (1, "1 without a score")
    (text,) = by_method(loaded.runs, "t").axes[0].texts
    assert text.get_text() == "1 failed", "in the figure as well"
    (effect,) = effects(loaded.runs).to_dict("records")
    assert (effect["n"], effect["failed"], effect["runs"]) == (1, 1, 2)


def test_two_kinds_of_scratch_give_no_differences_and_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for seed in range(2):
        for code in ("0" * 64, "1" * 64):
            add(store, "scratch", 0.4, seed, source="none", pretrain_code=code)
        add(store, "ours", 0.5, seed)
    built = build_report(store, tmp_path / "out")
    for text in (built.files["table"].read_text(), built.text, built.files["page"].read_text()):
        assert re.search(r"no differences, since there are 2 kinds of scratch: scratch #\w+, scratch #\w+", text)


def test_failures_of_real_pretrainings_are_not_booked_to_rows_of_others(tmp_path: Path) -> None:
    """Real pre-trainings of ours failed; its row is of a stand-in."""
    store = Store(tmp_path / "runs")
    for seed in range(2):
        add(store, "csc", 0.5, seed, synthetic=True)
        add(store, "ours", 0.5, seed, synthetic=True, source="synth-scannet")
    lost = [FailedPretraining("b", "p", False, "ours", "scannet", seed, f"k{seed}", "d", "ours") for seed in range(3)]
    nothing = FailedPretraining("b", "p", None, "scratch", "none", 0, "k", "d", "scratch")
    table = compare(load_runs(store), lost=[*lost, nothing]).set_index("method")
    assert table.loc["ours", "failed"] == "0" and table.loc["ours (scannet)", "failed"] == "3 pre-trainings"
    assert table.loc["scratch", "failed"] == "1 pre-training", "with data or without, both are counted"


def test_versions_of_a_split_share_no_table_of_label_ratios(tmp_path: Path) -> None:
    """Runs on two test sets are two families, and no cell hides another."""
    store = Store(tmp_path / "runs")
    for version, score in ((1, 0.5), (2, 0.2)):
        split = SPLIT | {"version": version, "test": [f"scene{version}"]}
        for percent in (5.0, 100.0):
            add(store, "ours", score, percent=percent, split=split)
    one, two = families(effects(load_runs(store)))
    cells = [by_ratio(family).set_index("method").loc["ours", ["5%", "100%"]].tolist() for family in (one, two)]
    assert sorted(cells) == [["20.0 n=1"] * 2, ["50.0 n=1"] * 2] and one.title != two.title


def test_a_report_leaves_nothing_of_the_one_before_it(tmp_path: Path) -> None:
    """Other runs into the same folder: no table of the first store stays beside those of the second; notes of a person do."""
    one, two, out = Store(tmp_path / "one"), Store(tmp_path / "two"), tmp_path / "out"
    add(one, "ours", 0.5)
    add(two, "ours", 0.5, percent=5.0)
    build_report(one, out)
    (out / "notes.txt").write_text("mine")
    first = {p.name for p in out.iterdir()}
    assert {"index.html", "table1.md", "runs.csv"} <= first
    build_report(two, out, page=False)
    second = {p.name for p in out.iterdir()}
    assert "notes.txt" in second and not {"index.html", "table1.md"} & second and "runs.csv" in second
    assert not [name for name in second if "-100-" in name] and [name for name in second if "-5-" in name]


def test_every_run_is_a_row_of_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "scratch", 0.4, 3, 1, source="none")
    add(store, "ours", 0.5, outcome="crashed", message="no")
    build_report(store, tmp_path / "out", page=False)
    runs = pd.read_csv(tmp_path / "out/runs.csv").set_index("method")
    assert runs.loc["scratch", ["pretrain_seed", "finetune_seed", "score_best"]].tolist() == [3, 1, 0.4]
    assert runs.loc["ours", "outcome"] == "crashed" and np.isnan(runs.loc["ours", "score_final"])


def test_names_of_a_foreign_store_are_no_formulas_no_markup_and_no_paths(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    for record in list(store.records()):
        rewrite(store, record, method="../../out/x", dataset="a$\\foo$<b>|x](http://e)")
    text = build_report(store, tmp_path / "out", page=False).files["table"].read_text()
    assert "<b>" not in text and "](http" not in text.replace("\\](http", "")
    export(store, None, "tensorboard", tmp_path / "export")
    assert {p.parent.parent for p in (tmp_path / "export").rglob("events.out*")} == {tmp_path / "export/tensorboard"}
    assert not list((tmp_path / "out").glob("x*"))


def test_a_record_without_its_cell_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    (record,) = [r for r in store.records() if r.cell]
    rewrite(store, record, cell=None)
    with pytest.raises(WrongUse, match=f"finetune/{record.key}: its record names no cell"):
        load(store)


def test_a_report_names_no_dataset_as_cells_do() -> None:
    assert NO_DATASET == graph.NO_DATASET


def test_a_watch_writes_again_when_a_run_ended_and_only_then(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, "scratch", 0.4)
    built: list[int] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            add(store, "ours", 0.5)
        if len(slept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(reporting.time, "sleep", sleep)
    report_command._watch(store.root, tmp_path / "out", lambda _: built.append(len(list(store.records()))))
    assert built == [2, 4] and slept == [reporting.WATCH_SECONDS] * 4
    assert "2 runs; Ctrl-C ends the watch\n" in (said := capsys.readouterr().out) and "the watch has ended" in said


def test_limited_labels_have_no_share(store: Store) -> None:
    add(store, "scratch", 0.4, labels=LabelRatio(boxes=2))
    add(store, "csc", 0.4, labels=LabelRatio(points=20))
    add(store, "ours", 0.5, percent=5.0)
    shares = load_runs(store).set_index("method")["label_percent"]
    assert np.isnan(shares[["scratch", "csc"]]).all() and shares["ours"] == 5.0


def test_groups_of_one_title_are_told_apart_and_name_their_checkpoint(store: Store, tmp_path: Path) -> None:
    add(store, "scratch", 0.4, source="none")
    add(store, "ours", 0.5)
    add(store, "ours", 0.6, voxel=0.2, checkpoints=("final", "best"))
    build_report(store, tmp_path / "out", page=False)
    text = (tmp_path / "out/table.md").read_text()
    titles = [line for line in text.splitlines() if "differences and verdicts of" in line]
    assert len(set(titles)) == 2 and all(re.search(r"protocol #[0-9a-f]{6}; diff", title) for title in titles)
    assert {title.rsplit(" ", 1)[1] for title in titles} == {"selected", "final"}


def test_a_store_without_finetunings_says_so_whatever_is_asked_for(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.5)
    (run,) = (store.root / "finetune").iterdir()
    shutil.rmtree(run)
    assert "There are no fine-tuning runs yet" in build_report(store, tmp_path / "out", keys=set(), page=False).text
