"""Wherever a score is shown, the share of the official test split that it covers is shown too."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.benchmarks.datasets.coverage import SplitCoverage, name_runs, official_test_scenes, split_coverage
from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.audit.coverage import CHECK, check_coverage
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.cli.show import show
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.store.spec_reader import SharedSpec
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.compare import Side, paired
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.comparison_table import comparison_table
from pretrain_bench.reports.tables.effect_cells import EffectColumn, columns_of_group
from pretrain_bench.reports.tables.table_one import table_one
from tests.conftest import NANO, Bench, write_room
from tests.reports.stores import add
from tests.tiny_data import TEST, prepared, write_scannet


@pytest.mark.parametrize(
    ("name", "count"), [("s3dis", 68), ("scannet", 312), ("semantickitti", 4071), ("sunrgbd", 5050)]
)
def test_the_official_number_of_test_scenes_is_known(name: str, count: int) -> None:
    empty = Manifest(dataset=name, synthetic=False, scenes=(), files={})
    coverage = split_coverage(find(Dataset, name), empty, ())
    assert coverage.official and coverage.expected == count and (coverage.present, coverage.scored) == (0, 0)
    assert not coverage.whole and coverage.missing


def test_a_test_scene_that_cannot_be_read_is_named_first() -> None:
    dataset = find(Dataset, "s3dis")
    names = sorted(official_test_scenes(dataset) or ())
    lost = "Area_5__storage_3"
    scenes = tuple(SceneEntry(name=n) for n in names if n not in (lost, "Area_5__WC_1"))
    manifest = Manifest(dataset="s3dis", synthetic=False, scenes=scenes, files={}, left_out=(SceneEntry(name=lost),))
    coverage = split_coverage(dataset, manifest, [s.name for s in scenes])
    assert coverage.missing == (lost, "Area_5__WC_1") and coverage.mark == "66 of 68 test scenes"
    assert coverage.text == f"66 of the 68 official test scenes scored; missing: {lost}, Area_5__WC_1"
    whole = split_coverage(dataset, manifest, names)
    assert whole.whole and whole.mark == "" and manifest.sha256 != manifest.model_copy(update={"left_out": ()}).sha256


def test_test_scenes_of_a_users_data_are_those_of_the_folder() -> None:
    own = find(Dataset, "s3dis").model_copy(update={"split_file": None, "name": "own"})
    read = (SceneEntry(name="Area_5__a"), SceneEntry(name="Area_1__a"))
    manifest = Manifest(dataset="own", synthetic=False, scenes=read, files={}, left_out=(SceneEntry(name="Area_5__b"),))
    coverage = split_coverage(own, manifest, ["Area_5__a"])
    assert (coverage.official, coverage.expected, coverage.present, coverage.scored) == (False, 2, 1, 1)
    assert coverage.missing == ("Area_5__b",)
    extra = split_coverage(find(Dataset, "s3dis"), manifest, ["Area_5__a"])
    assert extra.unlisted == 1 and not extra.whole and "that are not official" in extra.text


def test_numbered_names_are_joined() -> None:
    names = [f"08__{i:06d}" for i in (0, 1, 2, 5, 8, 9)]
    assert name_runs(names) == ("08__000000 to 08__000002", "08__000005", "08__000008", "08__000009")
    assert name_runs(["office_9", "office_10"]) == ("office_10", "office_9")


def test_the_mesh_and_the_recording_of_a_scene_fail_separately(tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", (TEST[0],), frames=True)
    folder = root / "scans" / TEST[0]
    (folder / f"{TEST[0]}.sens").write_bytes(b"\x04\x00\x00\x00cut off")
    cut = prepared("scannet", root, tmp_path / "a")
    (scene,) = cut.manifest.scenes
    assert (scene.points, scene.frames) == (150, 0) and not (cut.folder / "unlabelled" / TEST[0] / "frames").exists()
    (problem,) = cut.manifest.problems
    assert problem.startswith(f"{TEST[0]}: its recording is left out: scans/{TEST[0]}/{TEST[0]}.sens")
    (folder / f"{TEST[0]}.sens").unlink()
    (folder / f"{TEST[0]}_vh_clean_2.ply").write_bytes(b"ply\n")
    (scene,) = prepared("scannet", root, tmp_path / "b").manifest.scenes
    assert (scene.points, scene.frames) == (0, 2)


SPLIT = {"version": 1, "train": ["a"], "selection": [], "test": ["Area_5__office_1"], "sha256": "1" * 64}
PART = SplitCoverage(official=True, expected=68, present=67, scored=67, missing=("Area_5__office_2",))


@pytest.fixture
def partial_store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    for method, score, read in (("scratch", 0.5, ()), ("ours", 0.6, ("Area_5__office_1",))):
        add(store, method, score, coverage=PART, split=SPLIT, read=read)
    return store


@pytest.mark.usefixtures("undrawn")
def test_tables_mark_the_cell_and_the_title(partial_store: Store, tmp_path: Path) -> None:
    known = effects(load_runs(partial_store))
    cell = table_one(known).set_index("method").loc["ours"].iloc[-1]
    assert "67 of 68 test scenes" in cell
    build_report(partial_store, tmp_path / "out")
    for name in ("table.md", "tables/table1.md", "index.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "67 of 68 test scenes" in text and "pre-training saw 1 of 1 test scenes" in text, name
    group = (tmp_path / "out/table.md").read_text()
    assert (
        "not comparable, since pre-training saw test scenes or may have: ours on s3dis-sem (pre-training saw 1 of 1 test scenes)"
        in group
    )
    assert re.search(r"\| contamination +\|.*\n.*\n.*\| none +\|", group)


def test_the_list_of_runs_marks_the_row(partial_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    show(runs=partial_store.root)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "s3dis-sem" in line]
    assert len(rows) == 2 and all(", 67/68" in row for row in rows)
    assert "* n/m: n of the m scenes of the test split were scored" in printed


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_marks_the_side(partial_store: Store, tmp_path: Path) -> None:
    whole = Store(tmp_path / "whole")
    for method, score in (("scratch", 0.5), ("ours", 0.6)):
        add(whole, method, score, split=SPLIT)
    table = comparison_table(paired(Side("a", whole), Side("b", partial_store))[0]).set_index("method")
    assert table.loc["ours", ["A", "B"]].tolist() == ["60.0", "60.0 (67 of 68 test scenes)"]


def test_published_numbers_never_stand_beside_part_of_the_split(partial_store: Store) -> None:
    runs = load_runs(partial_store).assign(
        train_scenes=204,
        held_out_scenes=0,
        test_scenes=68,
        mean_over=13,
        voxel_metres=0.05,
        pretrain_steps=40_000,
        finetune_steps=20_000,
    )
    best = effects(runs, checkpoint="best")
    own = EffectColumn("own", "own", {}, best)
    assert list(columns_of_group(own, "best", best, lambda effect: 66.5)) == [own]
    whole = effects(runs.assign(part_of_test_split=""), checkpoint="best")
    _, beside = columns_of_group(own, "best", whole, lambda effect: 66.5)
    assert "[paper 66.5]" in beside.cells()["ours"]


def test_an_audit_fails_the_claim_of_a_full_test_split(partial_store: Store) -> None:
    (record, *_) = [r for r in partial_store.records() if r.kind == "finetune"]
    spec = partial_store.spec("finetune", record.key)

    def verdicts(**changes: object) -> dict[str, str]:
        tally = Tally()
        changed = spec.model_copy(update=more)
        run = AuditedRun(Path(), record.model_copy(update=changes), changed, SharedSpec(changed))
        check_coverage(run, tally)
        return {f.check: f.detail for f in tally.all() if f.verdict == "failed"}

    more: dict[str, object] = {}
    assert verdicts() == {CHECK: PART.text}
    more = {"coverage": None}  # an older spec, or one that omits it
    assert "1 of the 68 official test scenes scored; missing: Area_5__WC_1" in verdicts()[CHECK]
    more = {}
    claim = PART.model_copy(update={"scored": 68, "missing": ()})
    assert "test scenes are counted correctly" in verdicts(coverage=claim)
    names = tuple(sorted(official_test_scenes(find(Dataset, "s3dis")) or ()))
    assert spec.split is not None
    more = {"split": spec.split.model_copy(update={"test": names}), "coverage": claim}
    assert verdicts(coverage=claim) == {}


@pytest.mark.slow
def test_a_lost_room_is_named_from_the_run_to_the_audit(bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    import numpy as np

    root = Path(shutil.copytree(s3dis_root, tmp_path / "s3dis"))
    write_room(root / "Area_5/office_2/Annotations", np.random.default_rng(1))
    wall = root / "Area_5/office_2/Annotations/wall_1.txt"
    wall.write_bytes(wall.read_bytes()[:-9])
    run = bench("run", "--method", "scratch", "--task", "s3dis-sem", *NANO, "--data", f"s3dis={root}", "--threads", "1")
    assert "1 of the 68 official test scenes scored; missing: Area_5__office_2" in run.stderr
    (record,) = [json.loads(p.read_text()) for p in (tmp_path / "runs/finetune").glob("*/record.json")]
    spec = json.loads((tmp_path / "runs/finetune" / record["key"] / "spec.json").read_text())
    assert record["coverage"] == spec["coverage"] and record["coverage"]["missing"][0] == "Area_5__office_2"
    assert (record["coverage"]["expected"], record["coverage"]["present"], record["coverage"]["scored"]) == (68, 1, 1)
    assert "missing: Area_5__office_2" in " ".join(bench("show", record["key"]).stdout.split())
    listed = bench("show").stdout
    assert ", 1/68\n" in listed and "n of the m scenes of the test split were scored" in listed
    audit = bench("audit", code=1)
    assert CHECK in audit.stdout + audit.stderr and "Area_5__office_2" in audit.stdout + audit.stderr
    bench("report", "--out", "report")
    table = pd.read_csv(tmp_path / "report/tables/table1.csv").to_string()
    assert "1 of 68 test scenes" in table and "paper" not in table
