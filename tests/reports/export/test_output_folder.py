"""A report's folder: which files are removed, and which never."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.compare import Side
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.comparison import build_comparison
from pretrain_bench.reports.export.output_folder import COMPARISON_FILES, REPORT_FILES, earlier_files_removed
from tests.reports.stores import add


def files_in(folder: Path) -> set[str]:
    """The paths of the visible files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


@pytest.mark.slow
def test_every_file_of_a_report_is_known_as_one(tmp_path: Path) -> None:
    one, out = Store(tmp_path / "one"), tmp_path / "out"
    for seed in range(2):
        for percent in (5.0, 100.0):
            for synthetic in (False, True):
                add(one, "scratch", 0.4 + 0.01 * seed, seed, seed, source="none", synthetic=synthetic, percent=percent)
                add(one, "ours", 0.5 + 0.01 * seed, seed, seed, synthetic=synthetic, percent=percent)
    build_report(one, out)
    names = files_in(out)
    assert len(names) > 60 and not [n for n in names if not REPORT_FILES.fullmatch(n) or COMPARISON_FILES.fullmatch(n)]
    build_comparison(Side("a", one), Side("b", one), out)
    more = files_in(out) - names
    assert len(more) == 18 and not [n for n in more if REPORT_FILES.fullmatch(n) or not COMPARISON_FILES.fullmatch(n)]


@pytest.mark.slow
def test_a_comparison_leaves_nothing_of_the_one_before_it(tmp_path: Path) -> None:
    real, made_up, out = Store(tmp_path / "real"), Store(tmp_path / "synthetic"), tmp_path / "out"
    add(real, "ours", 0.5)
    add(made_up, "ours", 0.5, synthetic=True)
    build_report(real, out, page=False)
    of_the_report = files_in(out)
    build_comparison(Side("a", real), Side("b", real), out)
    build_comparison(Side("a", made_up), Side("b", made_up), out)
    names = files_in(out)
    assert "synthetic-compare.md" in names and not {"compare.md", "figure-compare.png"} & names
    assert of_the_report <= names


def test_what_others_write_meanwhile_stays_and_what_broke_off_goes(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("a")
    with earlier_files_removed(tmp_path, REPORT_FILES):
        (tmp_path / "table.md").write_text("1")
        (tmp_path / "run.log").write_text("ab")
    with pytest.raises(OSError, match="full"), earlier_files_removed(tmp_path, REPORT_FILES):
        (tmp_path / "effects.csv").write_text("2")
        raise OSError("full")
    assert (tmp_path / "table.md").exists(), "nothing goes before the next is whole"
    with earlier_files_removed(tmp_path, REPORT_FILES):
        (tmp_path / "tables").mkdir()
        (tmp_path / "tables/cost.md").write_text("3")
        (tmp_path / "groups/one").mkdir(parents=True)
        (tmp_path / "groups/one/scores.png").write_text("3")
        (tmp_path / "tables/my-selection.csv").write_text("mine")
    assert files_in(tmp_path) == {"run.log", "tables/cost.md", "groups/one/scores.png", "tables/my-selection.csv"}
    with earlier_files_removed(tmp_path, REPORT_FILES):
        (tmp_path / "table.md").write_text("4")
    assert files_in(tmp_path) == {"run.log", "table.md", "tables/my-selection.csv"}
    assert {p.name for p in tmp_path.iterdir()} == {"run.log", "table.md", "tables", ".bench-report.json"}


def test_the_files_of_an_earlier_version_go_too(tmp_path: Path) -> None:
    """It wrote all of them to one folder."""
    earlier = ["synthetic-ratios1.md", "figure-synthetic-forest.png", "curves-s3dis-sem-5-a.csv", "claims.tex"]
    for name in (*earlier, "figure-mine.txt"):
        (tmp_path / name).write_text("1")
    (tmp_path / ".bench-report.json").write_text(json.dumps([*earlier, "figure-mine.txt"]))
    with earlier_files_removed(tmp_path, REPORT_FILES):
        (tmp_path / "table.md").write_text("2")
    assert files_in(tmp_path) == {"table.md", "figure-mine.txt"}


@pytest.mark.usefixtures("undrawn")
def test_a_report_leaves_nothing_of_the_one_before_it(tmp_path: Path) -> None:
    """Reporting other runs into the same folder removes the tables of the first report, but keeps the user's notes."""
    one, two, out = Store(tmp_path / "one"), Store(tmp_path / "two"), tmp_path / "out"
    add(one, "ours", 0.5)
    add(two, "ours", 0.5, percent=5.0)
    build_report(one, out)
    (out / "notes.txt").write_text("mine")
    first = files_in(out)
    assert {"index.html", "tables/table1.md", "runs.csv"} <= first
    build_report(two, out, page=False)
    second = files_in(out)
    assert "notes.txt" in second and not {"index.html", "tables/table1.md"} & second and "runs.csv" in second
    (group,) = (out / "groups").iterdir()
    assert "-5-" in group.name
