"""The conformance suite detects methods that break one rule each; an executor plays these methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pretrain_bench.api.methods import checks_folder
from pretrain_bench.benchmarks.datasets.layout import Manifest
from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.harness.contract.events import EVENTS_FILE, End, EventWriter, Ledger, Start, Step, Usage
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Execution, StageLaunch
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.running import conformance
from pretrain_bench.harness.running.conformance import Conformance
from pretrain_bench.harness.running.scoring import Scores
from tests.tiny_data import files_of_tasks

FAULTS = (
    "none",
    "more steps",
    "no start",
    "half a backbone",
    "one seed",
    "chance",
    "looks at labels",
    "forgets",
    "crash",
)


class Actor:
    """Plays the process of a method: writes what the contract requires, or breaks one rule."""

    name, label_isolation, not_enforced = "actor", "none", ()

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.chance = np.random.default_rng()

    def run(self, launch: StageLaunch) -> Execution:
        root, spec = launch.root, launch.spec
        launch.log.write_text("")
        (root / "out/artifacts").mkdir(exist_ok=True)
        events = EventWriter(root / "out" / EVENTS_FILE)
        done = int((root / "out/done").read_text()) if (root / "out/done").is_file() else 0

        def tell(event: Start | Step | Usage | End) -> None:
            events.write(event)
            launch.on_event(event)

        steps = int(spec.limits.amount) + (2 if self.fault == "more steps" and spec.kind == "pretrain" else 0)
        if self.fault != "no start":
            tell(Start(total_steps=steps, resumed_from=done))
        try:
            for step in range(done + 1, steps + 1):
                (root / "out/done").write_text(str(step))
                tell(Step(step=step, loss=1, learning_rate=1, gradient_norm=1, seconds=0, data_seconds=0))
        except KeyboardInterrupt:
            return Execution(130, "cancel", False, Measured())
        tell(Usage(ledger=Ledger(optimizer_steps=steps)))
        if self.fault == "crash":
            return Execution(1, None, False, Measured())
        if spec.kind == "pretrain":
            self.write_backbone(root, spec, resumed=done > 0)
        tell(End(status="ok", notes={"transferred_tensors": "372 of 374"}))
        return Execution(0, None, False, Measured())

    def write_backbone(self, root: Path, spec: StageSpec, resumed: bool) -> None:
        number = float(0 if self.fault == "one seed" else spec.seed)
        if self.fault == "chance":
            number = float(self.chance.random())
        if (
            self.fault == "looks at labels"
            and (root / "data" / spec.data.dataset / "unlabelled").resolve().parent.joinpath("labelled").is_dir()
        ):
            number += 0.5
        if self.fault == "forgets" and resumed:
            number += 0.25
        shapes = backbone_shapes(spec.network)
        names = list(shapes)[: 10 if self.fault == "half a backbone" else None]
        tensors = {n: np.full(shapes[n], number, np.int64 if n.endswith("tracked") else np.float32) for n in names}
        save_file(tensors, root / "out/artifacts/backbone.safetensors")


EXPECTED = {
    "none": [], "more steps": ["run"], "no start": ["events"], "half a backbone": ["run"], "one seed": ["seed"],
    "chance": ["labels", "repetition", "resumption"], "looks at labels": ["labels"], "forgets": ["resumption"],
    "crash": ["run"],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_broken_rule_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.verdict.score_finetune", lambda *_: Scores({}, {}))
    monkeypatch.setattr(PreparedDataset, "check_labels", lambda *_: None)  # the manifests name missing files
    data = tmp_path / "data"
    for view in ("unlabelled", "labelled"):
        (data / view / "scene0000_00").mkdir(parents=True)
    image = data / "unlabelled/scene0000_00/image.png"
    image.write_bytes(b"large")
    names = [{"name": f"scene000{i}_00", "frames": 2} for i in range(3)]
    sources = []
    for name in ("synth-scannet", "synth-s3dis"):
        scenes = names if name == "synth-scannet" else [{"name": f"Area_{i}__a"} for i in range(1, 7)]
        manifest = Manifest.model_validate(
            {"dataset": name, "synthetic": True, "scenes": scenes, "files": files_of_tasks(s["name"] for s in scenes)}
        )
        sources.append(PreparedDataset(find(Dataset, name).sized("smoke"), data, manifest))
    method = find(Method, "csc")
    verdicts = list(Conformance(method, sources[0], sources[1], Actor(fault), tmp_path / "runs").run())
    assert [v.check for v in verdicts if v.verdict == "failed"] == EXPECTED[fault], verdicts
    assert "failed" not in [v.verdict for v in verdicts] or fault != "none"
    if fault == "none":
        assert (tmp_path / "runs/blind" / image.relative_to(data)).samefile(image), (
            "linked, not copied: data may be large"
        )
    assert conformance.STEPS_A_STAGE > 2


def test_the_checks_run_beside_the_cache_where_links_to_data_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    with checks_folder(None) as folder:
        assert folder.parent == cache
    assert not list(cache.iterdir())
    monkeypatch.setattr("os.access", lambda *_: False)
    with checks_folder(None) as folder:
        assert folder.parent != cache, "a shared cache may be read-only"
