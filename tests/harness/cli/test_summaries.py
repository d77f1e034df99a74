"""The summary at the end of commands: the warnings of a run, and the score that reports judge."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.harness.cli import run
from pretrain_bench.harness.cli.matrix import Matrix
from pretrain_bench.harness.store.bundle import open_store
from tests.conftest import Bench
from tests.harness.cli.test_matrix import SMOKE, Report


def test_warnings_that_differ_only_in_numbers_are_one_line() -> None:
    record = next(r for r in open_store(SMOKE).records() if r.cell is not None)

    class Stage(Report):
        planned = type("Planned", (), {"title": "ours -> s3dis-sem at 100%"})
        reused = True

    def stage(*warnings: str) -> Stage:
        return Stage(record.model_copy(update={"warnings": warnings}))

    class Result:
        stages = (stage("gradient norm 0.3%"), stage("no scene held out"), stage("gradient norm 12%"))

        def rows(self) -> list[Any]:
            return []

    notes = run._notes(Result())  # type: ignore[arg-type]
    assert [note for note in notes if note.startswith("warning")] == [
        "warning: ours -> s3dis-sem at 100%: gradient norm 0.3% (also in 1 similar stage)",
        "warning: ours -> s3dis-sem at 100%: no scene held out",
    ]


@pytest.mark.parametrize(
    ("suite", "advice"),
    [(None, "add --method scratch to the same command"), ("mine", "add scratch to the suite's methods")],
)
def test_the_advice_on_a_missing_baseline_keeps_the_options_of_the_command(
    suite: str | None, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another command would lack data, profile, threads or seeds, and its probes would not be comparable."""
    record = next(r for r in open_store(SMOKE).records() if r.cell is not None)
    cell = record.cell.model_copy(update={"method": "ours", "protocol": "linear"})

    class Stage(Report):
        reused = True
        planned = SimpleNamespace(title="a probe", spec=SimpleNamespace(headline_metric="miou_voxel"))

    probe = Stage(record.model_copy(update={"cell": cell}))
    run._print(pb.RunResult([probe], []), Matrix(suite=suite))
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next:")]
    assert steps[0] == f"next: {advice}: linear probes are compared with a frozen random backbone"


def test_json_of_runs_has_what_the_list_has(bench: Bench) -> None:
    shown = json.loads(bench("show", "--runs", str(SMOKE), "--json").stdout)
    for one, listed in zip(shown, pb.list_runs(SMOKE), strict=True):
        facts = {name: one[name] for name in ("title", "seed", "metric", "score", "checkpoint", "budget")}
        assert facts == {name: getattr(listed, name) for name in facts} and one["budget"] == "smoke"
        assert one["key"] == listed.record.key and (one["seed"] == 0) == (one["cell"] is None)
    tuned = next(one for one in shown if one["cell"])
    one = json.loads(bench("show", tuned["key"], "--runs", str(SMOKE), "--json").stdout)
    classes = one.pop("classes")
    numbers = {int(number) for number in re.findall(r"iou_voxel/(\d+)_final", " ".join(one["metrics"]))}
    assert one == tuned and numbers == set(range(len(classes))) and "ceiling" in classes


def test_the_list_of_runs_has_the_score_that_reports_judge(bench: Bench) -> None:
    text = bench("show", "--runs", str(SMOKE)).stdout
    judged = {r.record.key: r for r in pb.list_runs(SMOKE) if r.metric is not None}
    assert {r.checkpoint for r in judged.values()} == {"selected"} and {r.budget for r in judged.values()} == {"smoke"}
    differing = [
        r for r in judged.values() if r.record.metrics["miou_voxel_selected"] != r.record.metrics["miou_voxel_final"]
    ]
    assert differing
    for one in differing:
        shown = f"{100 * (one.record.metrics['miou_voxel_selected'] or 0):.1f} miou_voxel"
        assert re.search(rf"{one.record.key}  .* 0/0 +smoke +synth-s3dis +{shown}", text), one.title
