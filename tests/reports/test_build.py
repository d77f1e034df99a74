"""Whole reports of handmade stores."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.api import reporting
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.cli import report as report_command
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.export.loggers import export
from pretrain_bench.reports.page import plotly_figures
from pretrain_bench.reports.tables.formats import markdown
from pretrain_bench.reports.tables.group_table import group_table
from tests.reports.stores import add, only_group, rewrite


@pytest.mark.usefixtures("undrawn")
def test_synthetic_and_real_never_meet(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.5)
    add(store, "ours", 0.9, synthetic=True, source="synth-scannet")
    report = build_report(store, tmp_path / "out")
    sections = [s for s in report.text.split("s3dis-sem on ")[1:]]
    assert len(sections) == 2 and sum("50.0" in s for s in sections) == 1 and sum("90.0" in s for s in sections) == 1
    assert report.text.count("**SYNTHETIC DATA**: ") == 2, "one answer, one table"
    pictures = sorted(p.parent.name for p in (tmp_path / "out").glob("groups/*/scores.png"))
    assert len(pictures) == 2 and sum("synthetic" in p for p in pictures) == 1
    page = (tmp_path / "out/index.html").read_text()
    assert "<title>SYNTHETIC DATA" in page
    ids, contents = (
        re.findall(part, page.split("<script>")[0]) for part in (r'\sid="([^"]+)"', r'<li><a href="#([^"]+)"')
    )
    assert len(set(ids)) == len(ids) and len(set(contents)) == len(contents) and set(contents) <= set(ids)
    assert {"table-table1", "table-synthetic-table1"} <= set(contents)
    titles = re.findall(r'<li><a href="#[^"]+">([^<]+)', page)
    assert len(set(titles)) == len(titles) and {"All labels", "SYNTHETIC DATA: All labels"} <= set(titles)


def test_tables_of_several_protocols_have_headings_of_their_own(store: Store, tmp_path: Path) -> None:
    for protocol in ("finetune", "linear"):
        for percent in (20.0, 100.0):
            add(store, "ours", 0.5, percent=percent, protocol=protocol)
    build_report(store, tmp_path / "out")
    contents = re.findall(r'<li><a href="#[^"]+">([^<]+)', (tmp_path / "out/index.html").read_text())
    assert len(set(contents)) == len(contents)
    assert {"Label ratios: s3dis-sem", "Label ratios: s3dis-sem (linear)"} <= set(contents)


@pytest.mark.usefixtures("undrawn")
def test_names_of_group_files_do_not_depend_on_other_groups(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.5)
    one = build_report(store, tmp_path / "out").files
    add(store, "ours", 0.5, percent=5.0)
    both = build_report(store, tmp_path / "out").files
    of_group = {name: path for name, path in one.items() if name.startswith("groups/")}
    assert {name.rpartition("/")[2] for name in of_group} >= {"table", "used", "scores", "curves"}
    assert of_group.items() < both.items(), "the group at 5 % comes before it"
    for name, path in both.items():
        assert not name.startswith("groups/") or path.with_suffix("") == tmp_path / "out" / name


def test_an_empty_store_says_so(store: Store, tmp_path: Path) -> None:
    report = build_report(store, tmp_path / "out")
    assert "There are no fine-tuning runs yet" in report.text
    assert "There are no fine-tuning runs yet" in (tmp_path / "out/index.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_report_begins_with_its_answer_and_the_csv_names_its_group(store: Store, tmp_path: Path) -> None:

    add(store, "ours", 0.5)
    add(store, "scratch", 0.4, source="none")
    built = build_report(store, tmp_path / "out")
    for name, text in {"terminal": built.text, "table": built.files["table"].read_text()}.items():
        assert text.startswith("- On s3dis-sem, ours is not tested"), name
        assert "- store: runs\n" in text and "- dates: 2026-01-01\n" in text and "s3dis (real)" in text, name
        assert str(tmp_path) not in text, "no path of this machine"
    page = built.files["page"].read_text()
    assert "ours is not tested" in page and "commit " in page and "at most 1 optimiser step" in page
    frame = pd.read_csv(built.files["csv"])
    assert list(frame["method"]) == ["scratch", "ours"] and set(frame["task"]) == {"s3dis-sem"}
    assert frame.loc[1, "verdict"] == "cannot be tested with this n"
    assert markdown(group_table(only_group(store))).count("\n") == 3


@pytest.mark.slow
def test_reports_are_reproducible(store: Store, tmp_path: Path) -> None:
    for seed, score in enumerate((0.5, 0.52, 0.51)):
        add(store, "ours", score, seed)
    add(store, "scratch", 0.4, source="none")
    for number, name in enumerate(("one", "two")):
        np.random.seed(number)  # as in two processes
        build_report(store, tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 60
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


@pytest.mark.usefixtures("undrawn")
def test_names_of_a_foreign_store_are_no_formulas_no_markup_and_no_paths(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "ours", 0.5)
    for record in list(store.records()):
        rewrite(store, record, dataset="a$\\foo$<b>|x](http://e)")
    text = build_report(store, tmp_path / "out", page=False).files["table"].read_text()
    assert "<b>" not in text and "](http" not in text.replace("\\](http", "")
    export(store, None, "tensorboard", tmp_path / "export")
    assert {p.parent.parent for p in (tmp_path / "export").rglob("events.out*")} == {tmp_path / "export/tensorboard"}
    for record in list(store.records()):
        rewrite(store, record, method="../../out/x")
    assert not list(store.records()) and "method: String should match pattern" in store.unreadable()[0]
    export(store, None, "tensorboard", tmp_path / "export")
    assert not list((tmp_path / "out").rglob("x*"))


@pytest.mark.usefixtures("undrawn")
def test_a_terminal_shows_one_table_for_each_task_where_there_are_many_groups(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, percent in enumerate((1.0, 2.0, 5.0, 10.0, 20.0, 100.0), 1):
        add(store, "scratch", 0.4, source="none", percent=percent)
        add(store, "ours", 0.5, percent=percent)
        assert build_report(store, tmp_path / "out", page=False).text.count("| scratch ") == number
    add(store, "scratch", 0.4, source="none", budget="other")
    built = build_report(store, tmp_path / "out", page=False)
    assert built.text.count("| scratch ") == 2 and built.text.count("Label ratios: s3dis-sem") == 1
    assert (tmp_path / "out/table.md").read_text().count("| scratch ") >= 7
    report_command._print(built.text, built.files, tmp_path / "out", False)
    said = capsys.readouterr().out
    below = [path for path in built.files.values() if path.parent != tmp_path / "out"]
    assert f"{len(below)} more tables and figures in {tmp_path / 'out'}: figures, groups, tables (--json" in said
    assert not [path for path in below if str(path) in said] and str(tmp_path / "out/table.md") in said


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
    report_command._watch(store.root, tmp_path / "out", lambda _: built.append(len(list(store.records()))), None)
    assert built == [2, 4] and slept == [reporting.WATCH_SECONDS] * 4
    assert "2 runs; Ctrl-C ends the watch\n" in (said := capsys.readouterr().out) and "the watch has ended" in said


def test_a_watch_waits_for_a_folder_that_does_not_exist_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, built, slept = tmp_path / "runs", [], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            assert not built
            runs.mkdir()
            add(Store(runs), "scratch", 0.4)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(reporting.time, "sleep", sleep)
    report_command._watch(runs, tmp_path / "out", lambda _: built.append(1), None)
    assert built == [1] and len(slept) == 3
    assert f"{runs} does not exist yet: waiting for `bench run` to create it" in capsys.readouterr().out

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reporting.time, "sleep", interrupted)
    report_command._watch(tmp_path / "never", tmp_path / "out", lambda _: built.append(1), None)
    assert capsys.readouterr().out.endswith("the watch has ended; no report was written\n") and built == [1]


def test_a_bucket_cannot_be_watched() -> None:
    with pytest.raises(WrongUse, match=r"s3://bucket/runs is a bucket; .* Leave out --watch for one report"):
        reporting.watch_runs(Path("s3://bucket/runs"))


@pytest.mark.usefixtures("undrawn")
def test_groups_of_one_title_are_distinguished_and_name_their_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown_nowhere(*_: object) -> None:
        pytest.fail("an interactive figure was made for a report without a page")

    for name in ("forest", "ratio_curves", "gains", "cost", "scores", "validation_curves"):
        monkeypatch.setattr(plotly_figures, name, shown_nowhere)
    add(store, "scratch", 0.4, source="none")
    add(store, "ours", 0.5)
    add(store, "ours", 0.6, voxel=0.2, checkpoints=("final", "best"))
    build_report(store, tmp_path / "out", page=False)
    text = (tmp_path / "out/table.md").read_text()
    titles = [line for line in text.splitlines() if "differences and verdicts of" in line]
    assert len(set(titles)) == 2 and all(re.search(r"conditions #[0-9a-f]{6}; diff", title) for title in titles)
    assert {re.findall(r"verdicts of (selected|final);", title)[0] for title in titles} == {"selected", "final"}


@pytest.mark.usefixtures("undrawn")
def test_a_store_without_finetunings_says_so_whatever_is_asked_for(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.5)
    (run,) = (store.root / "finetune").iterdir()
    shutil.rmtree(run)
    assert "There are no fine-tuning runs yet" in build_report(store, tmp_path / "out", keys=set(), page=False).text


@pytest.mark.usefixtures("undrawn")
def test_a_report_says_when_it_is_conditional_on_one_fine_tuning_seed(store: Store, tmp_path: Path) -> None:
    said = "conditional on one fine-tuning seed"
    add(store, "ours", 0.5)
    assert said not in build_report(store, tmp_path / "out").text, "one run claims nothing"
    add(store, "ours", 0.6, pretrain_seed=1)
    assert said in build_report(store, tmp_path / "out").text
    assert said in (tmp_path / "out/table.md").read_text()
    for seed in (0, 1):
        add(store, "ours", 0.5, pretrain_seed=seed, finetune_seed=1)
    assert said not in build_report(store, tmp_path / "out").text
    for seed in (0, 1):
        add(store, "ours", 0.3, pretrain_seed=seed, protocol="linear")
    assert said not in build_report(store, tmp_path / "out").text, "linear probes have no fine-tuning seed"
    for seed in (0, 1):
        add(store, "ours", 0.4, pretrain_seed=seed, percent=5)
    text = build_report(store, tmp_path / "out").text
    assert f"{said} in some groups: there every pre-training was fine-tuned once" in text
    titles = [line for line in text.splitlines() if line.startswith("s3dis-sem on ")]
    assert [said in title for title in titles] == ["5% of the labels" in title for title in titles] and len(titles) == 3
