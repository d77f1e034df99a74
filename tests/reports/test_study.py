"""The committed studies: their records are complete, and their printed numbers equal those of `bench report`."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.api.reporting import keys_of_suite
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.contract.events import EVENTS_FILE, Step, read_events
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.code_digest import code_hashes, digest_of_hashes
from pretrain_bench.harness.store.bundle import open_store
from pretrain_bench.harness.store.store import Store, write_json
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load, load_runs
from pretrain_bench.reports.analysis.probe_prediction import predictions
from tests.conftest import Bench
from tests.reports.stores import rewrite
from tests.verification.report import ROOT

pytestmark = pytest.mark.usefixtures("undrawn")

STUDY = ROOT / "docs/study"


def bundle(name: str) -> Path:
    """The bundle of a committed study."""
    return STUDY / f"{name}.bundle.tar.zst"


def store_of(name: str) -> Store:
    return open_store(bundle(name))


@pytest.mark.parametrize(
    ("suite", "least"),
    [
        pytest.param("tiny", 15, marks=pytest.mark.slow),
        pytest.param("probe-tiny", 273, marks=pytest.mark.slow),
        pytest.param("study", 257, marks=pytest.mark.slow),
        ("smoke", 19),
        ("smoke-gpu", 15),
    ],
)
def test_a_study_keeps_to_the_audit(suite: str, least: int, bench: Bench) -> None:
    findings = json.loads(bench("audit", str(bundle(suite)), "--json").stdout)
    assert not [f for f in findings if f["verdict"] == "failed"]
    assert len(list(store_of(suite).records())) >= least


def test_the_study_in_parts_can_be_continued() -> None:
    """Its records are those of registered cells, and of the code that `bench run` would run: otherwise it would begin anew."""
    store = store_of("study")
    records = list(store.records())
    said = re.search(r"([\d,]+) of ([\d,]+) stages are done", (STUDY / "README.md").read_text())
    assert said is not None and int(said[1].replace(",", "")) == len(records) <= int(said[2].replace(",", ""))
    assert {record.outcome for record in records} == {"ok"}
    assert keys_of_suite("study", store) == {record.key for record in records if record.kind == "finetune"}
    digests: dict[tuple[str, str, str], str] = {}
    for record in records:
        spec = store.spec(record.kind, record.key)
        stage = spec.kind, spec.code_of, spec.part
        if stage not in digests:
            digests[stage] = digest_of_hashes(code_hashes(*stage))
        assert spec.code_sha256 == digests[stage], f"the code of {stage} has changed since the study began"


@pytest.mark.parametrize("name", ["tiny", "smoke"])
def test_printed_numbers_are_those_of_the_records(name: str, bench: Bench, tmp_path: Path) -> None:
    bench("report", "--suite", name, "--runs", str(bundle(name)), "--no-page", "--out", str(tmp_path / "report"))
    table = (tmp_path / "report/tables/synthetic-ratios1.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    text = (STUDY / "tiny.md").read_text()
    assert len(rows) > 3 and all(row in text for row in rows), table
    suite, runs = find(Suite, name), load_runs(store_of(name))
    whole = len(suite.methods) * len(suite.label_ratios) * len(suite.pretrain_seeds)
    assert len(runs) == whole and set(runs["outcome"]) == {"ok"}


@pytest.mark.slow
def test_the_pages_are_what_make_study_pages_writes(tmp_path: Path) -> None:
    """Every marked table is the one of the report, and every marked picture has its figure there."""
    spec = importlib.util.spec_from_file_location("pages", STUDY / "pages.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(pages := importlib.util.module_from_spec(spec))
    file_of, shown, tables = pages.reports_in(tmp_path), set(), 0
    for page in sorted(STUDY.glob("*.md")):
        text = page.read_text()
        assert pages.with_tables(text, file_of) == text, f"{page.name}: `make study-pages` writes another page"
        changed = pages.TABLE.sub(lambda found: found[0].replace("| ours ", "| mine "), text)
        assert pages.with_tables(changed, file_of) == text
        tables += len(pages.TABLE.findall(text))
        shown |= set(pages.pictures(text, file_of))
    assert tables >= 2 and shown >= {"ratios.png", "curves-20.png", "probe-ratios.png", "probe-prediction.png"}
    assert all((STUDY / name).is_file() for name in shown)
    for broken in (
        "<!-- smoke: a.md -->\n\n| a |\n\n<!-- smoke: b.md -->\n<!-- end -->",
        "<!-- smoke: a.png -->\n\n![](a.png)",
    ):
        with pytest.raises(SystemExit, match="has no table"):
            pages.with_tables(broken, file_of)
    with pytest.raises(SystemExit, match=r"0 files of its report match 'none.png'"):
        file_of("smoke", "none.png")


def test_what_the_tiny_study_shows_is_what_its_records_say() -> None:
    """Checks every difference with an interval in the text, and every claimed difference."""
    text = " ".join((STUDY / "tiny.md").read_text().split("## The `smoke`")[0].split())
    found = effects(load_runs(store_of("tiny")))
    gaps = {
        f"{r['gain']:+.1f} [{r['gain_low']:.1f}, {r['gain_high']:.1f}]": r["verdict"] for r in found.to_dict("records")
    }
    printed = re.findall(r"[+-]\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]", text)
    assert len(printed) == 6 and set(printed) <= set(gaps)
    told = {gap for gap, verdict in gaps.items() if verdict in ("better", "worse")}
    assert told <= set(printed), "nothing that differs goes unsaid"
    seeds = found["seeds_for_1"].dropna()
    assert f"{seeds.min():.0f} to {seeds.max():.0f} seeds of each method" in text


def test_the_page_of_probes_says_what_its_records_say(bench: Bench, tmp_path: Path) -> None:
    """The table is that of the report; differences, rank correlation, seeds and costs are those of the records."""
    out, text = tmp_path / "report", (STUDY / "probes.md").read_text()
    bench("report", "--runs", str(bundle("probe-tiny")), "--no-page", "--out", str(out))
    printed = json.loads((out / "tables/synthetic-probes.json").read_text())
    (tuned,) = [p for p in out.glob("groups/*/table.json") if "linear" not in p.parent.name]
    assert len(printed) == 11
    for rows, shown in (
        (printed, ("method", "5%", "20%", "100%")),
        (json.loads(tuned.read_text()), ("method", "selected", "n", "vs. scratch", "verdict")),
    ):
        for row in rows:
            expected = r"\| " + r" +\| ".join(re.escape(str(row[name])) for name in shown) + r" +\|"
            assert re.search(expected, text), expected
    costs = [[float(part) for part in row["CPU-s: features + probe"].split(" + ")] for row in printed]
    features, probes = zip(*costs, strict=True)
    assert (round(min(probes)), round(max(probes))) == (1, 3) and "A probe took 1 to 3 CPU-seconds" in text
    assert min(features) >= 9 and max(features) <= 20 and "after 9 to 20 for features" in text
    runs, words = load_runs(store_of("probe-tiny")), " ".join(text.split())
    (found,) = predictions(runs)
    for point in found.points.to_dict("records"):
        assert re.search(rf"^\| {point['method']} .*\| {point['probe']:.1f} +\|$", text, re.MULTILINE), point
    assert f"{found.correlation:.2f}, with an interval from {found.low:.2f} to {found.high:.2f}" in words
    needed = effects(runs).groupby("protocol")["seeds_for_1"].agg(["min", "max"]).round().astype(int)
    (low, high), (few, many) = needed.loc["linear"], needed.loc["finetune"]
    assert f"{low} to {high} pre-training seeds by linear probe and {few} to {many} by fine-tuning" in words
    assert len(runs) == 183 and set(runs["outcome"]) == {"ok"}
    spent: dict[str, list[float]] = {}
    for record in store_of("probe-tiny").records():
        kind = record.cell.protocol if record.cell is not None else record.kind
        spent.setdefault(kind, []).append(record.ledger.cpu_seconds)
    total = {kind: sum(seconds) for kind, seconds in spent.items()}
    probing = (total["features"] + total["linear"]) / 60
    said = f"pre-trainings took {total['pretrain'] / 60:.0f} CPU-minutes, features and probes {probing:.0f}"
    assert said in words
    assert f"took {total['finetune'] / len(spent['finetune']):.0f} on the same machine" in words


def test_two_machines_are_compared_as_printed(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bench("report", "--compare", str(bundle("smoke")), str(bundle("smoke-gpu")), "--out", str(out))
    lines = (out / "synthetic-compare.md").read_text().splitlines()
    text = (STUDY / "tiny.md").read_text()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 12 and all(row in text for row in rows)
    assert "SYNTHETIC DATA: Over all cells: B - A -1.0, n=5 pre-trainings: cannot be tested with this n" in lines
    assert "Over all cells B - A is -1.0, which five pre-trainings cannot test" in text
    assert "H100" in " ".join(lines[-2:]) and "EPYC" in " ".join(lines[-3:])


@pytest.mark.parametrize(("kind", "bound"), [("pretrain", 0.02), ("finetune", 0.05)])
def test_losses_of_two_machines_stay_as_near_as_printed(kind: str, bound: float) -> None:
    """Compares means of ten steps from the records of a CPU and a GPU."""
    text = (STUDY / "tiny.md").read_text()
    assert f"at most {100 * bound:.0f} %" in text
    cpu, gpu = (_losses(store_of(name), kind) for name in ("smoke", "smoke-gpu"))
    assert set(gpu) <= set(cpu) and len(gpu) == {"pretrain": 4, "finetune": 10}[kind]
    apart = max(float((abs(cpu[of] - gpu[of]) / cpu[of]).max()) for of in gpu)
    assert 0.5 * bound < apart <= bound


def _losses(store: Store, kind: str) -> dict[tuple[str, ...], np.ndarray]:
    """The mean loss of each ten steps, by method, stage and label ratio."""
    found = {}
    for record in store.records():
        losses = [
            e.loss for e in read_events(store.folder(record.kind, record.key) / EVENTS_FILE) if isinstance(e, Step)
        ]
        if record.kind == kind and losses:
            ratio = str(record.cell.label_ratio) if record.cell else "-"
            found[record.method, record.stage, ratio] = np.array(losses).reshape(-1, 10).mean(1)
    return found


def test_a_report_of_a_suite_leaves_out_what_the_suite_excludes(tmp_path: Path) -> None:
    text = (ROOT / "benchmarks/configs/suites/tiny.yaml").read_text()
    store = store_of("tiny")
    methods = {r.key: r.method for r in store.records()}
    for name, more, missing in (
        ("same", "", set()),
        ("less", "exclude: [{method: csc}]\n", {"csc"}),
        ("other", "profile: smoke\n", set(find(Suite, "tiny").methods)),
    ):
        suite = tmp_path / f"{name}.yaml"
        suite.write_text(f"{text}{more}")
        assert set(find(Suite, "tiny").methods) - {methods[k] for k in keys_of_suite(str(suite), store)} == missing, (
            name
        )


def test_a_suite_may_name_a_method_by_its_folder(tmp_path: Path) -> None:
    """Records have the name given in its file."""
    (tmp_path / "own").mkdir()
    text = (ROOT / "methods/csc/method.yaml").read_text().replace("name: csc", "name: mine", 1)
    (tmp_path / "own/method.yaml").write_text(f"{text}\nimage: example/mine:1\n")
    suite = tmp_path / "own.yaml"
    suite.write_text(
        (ROOT / "benchmarks/configs/suites/tiny.yaml").read_text().replace(" csc,", f" {tmp_path / 'own'},")
    )
    mine = Store(tmp_path / "runs")
    for record in store_of("tiny").records():
        if record.method == "csc" and record.cell is not None:
            cell = record.cell.model_copy(update={"method": "mine"})
            rewrite(mine, record, method="mine", cell=cell)
    assert len(keys_of_suite(str(suite), mine)) == len(list(mine.records())) > 3 and not keys_of_suite("tiny", mine)


def test_a_report_of_a_suite_counts_the_failed_pretrainings_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    kept = {}
    for record in store_of("tiny").records():
        spec = store_of("tiny").spec(record.kind, record.key)
        if record.kind == "pretrain" and record.method in ("csc", "ours") and spec.seed == 0:
            # Unset fields are omitted: the key hashes the fields as written, even by a version without newer ones.
            payload = spec.model_dump(mode="json", exclude_unset=True)
            write_json(store.folder("pretrain", record.key) / "spec.json", payload)
            rewrite(store, record, outcome=Outcome.crashed, metrics={})
            kept[record.key] = record.method
    assert keys_of_suite("tiny", store) == set(kept) and len(kept) > 1
    suite = tmp_path / "less.yaml"
    suite.write_text((ROOT / "benchmarks/configs/suites/tiny.yaml").read_text() + "exclude: [{method: csc}]\n")
    counted = keys_of_suite(str(suite), store)
    assert {kept[key] for key in counted} == {"ours"}
    assert {lost.method for lost in load(store, counted).failed_pretrainings} == {"ours"}
