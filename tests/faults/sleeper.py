"""A stage of the contract that sleeps 0.1 to 1 s, depending on its key, and leaves the expected output.

It runs as `methods.stage` does: `python -m tests.faults.sleeper KIND --root ROOT`. After a kill it resumes.
`sleep_and_leave` does the same in the calling process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from pretrain_bench.harness.contract.events import EVENTS_FILE, End, Eval, EventWriter, Ledger, Start, Step, Usage
from pretrain_bench.harness.contract.stage import SHAPES_FILE, STAGE_FILE, StageSpec

TENTHS = 10


def main() -> int:
    """Sleep and write the output; a signal ends it as cancelled."""
    root = Path(sys.argv[sys.argv.index("--root") + 1])

    def stop(*_: object) -> None:
        EventWriter(root / "out" / EVENTS_FILE).write(End(status="cancelled"))
        os._exit(130)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sleep_and_leave(root)
    return 0


def sleep_and_leave(root: Path) -> None:
    """Sleep, and write events and artifacts into the stage's folder."""
    spec = StageSpec.model_validate_json((root / "in" / STAGE_FILE).read_bytes())
    number = int(spec.key[:8], 16)
    pause = (0.1 + 0.9 * (number % 1000) / 1000) / TENTHS * float(os.environ.get("BENCH_TEST_SLEEP", "1"))
    out, artifacts = root / "out", root / "out/artifacts"
    artifacts.mkdir(exist_ok=True)
    progress = out / "progress"
    done = int(progress.read_text()) if progress.is_file() else 0
    events = EventWriter(out / EVENTS_FILE)
    steps = int(spec.limits.amount)
    events.write(Start(total_steps=steps, resumed_from=done * steps // TENTHS))
    for tenth in range(done, TENTHS):
        time.sleep(pause)
        step = (tenth + 1) * steps // TENTHS
        events.write(Step(step=step, loss=1, learning_rate=1, gradient_norm=1, seconds=pause, data_seconds=0))
        temporary = out / "progress.tmp"
        temporary.write_text(str(tenth + 1))
        os.replace(temporary, progress)
    events.write(Usage(ledger=Ledger(optimizer_steps=steps, cpu_seconds=0.1, wall_seconds=pause * TENTHS)))
    metrics = pretrained(spec, root) if spec.kind == "pretrain" else finetuned(spec, root, events)
    events.write(End(status="ok", metrics=metrics, notes={"transferred_tensors": "372 of 374"}))


def pretrained(spec: StageSpec, root: Path) -> dict[str, float | None]:
    """Write a backbone with weights derived from the key."""
    from safetensors.numpy import save_file

    shapes = json.loads((root / "in" / SHAPES_FILE).read_text())
    value = int(spec.key[:6], 16) / 2**24
    tensors = {
        n: np.full(s, value, np.float32) if not n.endswith("num_batches_tracked") else np.zeros(s, np.int64)
        for n, s in shapes.items()
    }
    save_file(tensors, root / "out/artifacts/backbone.safetensors")
    return {}


def finetuned(spec: StageSpec, root: Path, events: EventWriter) -> dict[str, float | None]:
    """Write random predictions among three classes, derived from the key, at two validations, and their scores. The first is the
    better one on the test split, the second on held-out scenes."""
    from pretrain_bench.benchmarks.metrics import predictions
    from pretrain_bench.benchmarks.metrics.scorer import SemanticScorer

    assert spec.data is not None and spec.split is not None
    classes = len(spec.data.classes)
    view = root / "data" / spec.data.dataset
    scorer = SemanticScorer(view, spec.split.test, spec.task_recipe.voxel_metres, classes)
    chance = np.random.default_rng(int(spec.key[:8], 16))
    drawn = []
    for _ in range(2):
        predicted = {s: {"classes": chance.integers(0, 3, scorer.voxels(s), np.uint8)} for s in spec.split.test}
        drawn.append((predicted, scorer.score(predicted)))
    best, last = sorted(drawn, key=lambda one: one[1][spec.headline_metric] or 0.0, reverse=True)
    steps = int(spec.limits.amount)
    for step, on_held_out, (predicted, scores) in ((steps // 2, 0.1, best), (steps, 0.2, last)):
        if spec.split.selection:
            events.write(Eval(step=step, split="selection", metrics={spec.headline_metric: on_held_out}))
        digest = predictions.digest(predicted)
        events.write(Eval(step=step, split="test", metrics=scores, predictions_sha256=digest))
    chosen = {"final": last, "best": best, **({"selected": last} if spec.split.selection else {})}
    metrics: dict[str, float | None] = {}
    for which, (predicted, scores) in chosen.items():
        predictions.write(root / "out/artifacts/predictions" / which, predicted)
        metrics |= {f"{name}_{which}": value for name, value in scores.items()}
    return metrics


if __name__ == "__main__":
    sys.exit(main())
