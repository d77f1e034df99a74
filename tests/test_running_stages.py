"""Curves of running stages, from files of events that grow while they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.api.running_stages import RunningStages
from pretrain_bench.harness.store.store import Store
from tests.reports.stores import DATA, stage


def step(number: int, loss: float) -> str:
    plain = {"learning_rate": 0.1, "gradient_norm": 1.0, "seconds": 0.1, "data_seconds": 0.0}
    return json.dumps({"event": "step", "step": number, "loss": loss, **plain}) + "\n"


def evaluation(number: int, score: float) -> str:
    return (
        json.dumps({"event": "eval", "step": number, "split": "test", "metrics": {"miou_voxel": score, "other": 1.0}})
        + "\n"
    )


def lay_out(store: Store, kind: str = "finetune", **more: Any) -> Path:
    """The folder of a stage under way, with its spec. Returns its file of events, which is still to be written."""
    spec = stage(kind, "ours", 3, **more)
    root = store.partial(spec.key) / "root"
    for name in ("in", "out"):
        (root / name).mkdir(parents=True)
    (root / "in/stage.json").write_text(json.dumps(spec.model_dump(mode="json")))
    return root / "out/events.jsonl"


def figures(live: RunningStages) -> dict[str, dict[str, Any]]:
    return {figure["title"]: figure for figure in json.loads(live.as_json())["figures"]}


def key_of(events: Path) -> str:
    return events.parents[2].name


def test_half_written_events_of_a_running_stage_are_curves_marked_as_running(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events, live = lay_out(store), RunningStages(Store(tmp_path))
    half = step(30, 0.5)
    start = json.dumps({"event": "start", "total_steps": 40}) + "\n"
    events.write_text(start + step(10, 2.0) + step(20, 1.0) + evaluation(20, 0.25) + half[:30])
    assert live.read() == [], "no process runs it"
    with store.lock(key_of(events), print):
        (running,) = live.read()
        assert running.title == "ours -> s3dis-sem at 100%, seed ?/3"
        assert (running.state, running.step, running.steps) == ("running", 20, 40)
        assert running.losses == ([10, 20], [2.0, 1.0]) and (running.scores.steps, running.scores.scores) == (
            [20],
            [0.25],
        )
        shown = figures(live)
        loss = shown["Training loss of fine-tuning"]["data"][0]
        assert loss["name"].endswith("(running)") and (loss["x"], loss["y"]) == ([10, 20], [2.0, 1.0])
        (title,) = [t for t in shown if t.startswith("Validation while fine-tuning: mIoU")]
        score = shown[title]["data"][-1]
        assert score["name"].endswith("(running)") and (score["x"], score["y"]) == ([20], [25.0])
        assert json.loads(live.as_json())["stages"] == [[running.title, "running", "20 of 40"]]
        with events.open("a") as file:
            file.write(half[30:] + step(40, 0.25))
        assert live.read()[0].losses == ([10, 20, 30, 40], [2.0, 1.0, 0.5, 0.25]), "the line has its end now"
        # Another attempt resumes from its checkpoint at 10: what came after it is cut off and done again.
        again = json.dumps({"event": "start", "total_steps": 40, "resumed_from": 10}) + "\n"
        events.write_text(start + step(10, 2.0) + again + step(20, 0.75))
        assert live.read()[0].losses == ([10, 20], [2.0, 0.75]) and live.read()[0].scores.steps == []


def test_files_that_a_stage_may_not_leave_are_not_read(tmp_path: Path) -> None:
    store, secret = Store(tmp_path / "runs"), tmp_path / "secret"
    secret.write_text(step(1, 1.0))
    events = lay_out(store, "pretrain", data=DATA)
    events.symlink_to(secret)
    live = RunningStages(store)
    with store.lock(key_of(events), print):
        assert [stage.losses for stage in live.read()] == [([], [])], "no link is followed"
        spec = events.parents[1] / "in/stage.json"
        spec.rename(secret)
        spec.symlink_to(secret)
        assert RunningStages(store).read() == []


def test_many_steps_become_few_points(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events = lay_out(store, "pretrain", data=DATA)
    events.write_text("".join(step(number, number) for number in range(1, 1001)))
    with store.lock(key_of(events), print):
        shown = figures(RunningStages(store))
    (loss,) = shown["Training loss of pre-training"]["data"]
    assert len(loss["x"]) == len(loss["y"]) == 400 and loss["x"][-1] == 1000
    assert loss["y"][0] == pytest.approx(2.0), "the mean of the first steps"
