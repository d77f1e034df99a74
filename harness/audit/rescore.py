"""Recompute metrics, and the confusion matrices that pages show, from saved predictions, and compare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretrain_bench.benchmarks.metrics import predictions as prediction_files
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.audit.account import selected_steps
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.prepared import PreparedData
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.contract.events import EVENTS_FILE, read_events
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.running.checks import InvalidOutput
from pretrain_bench.harness.running.scoring import Confusion, disagreement, score_finetune
from pretrain_bench.harness.store.store import ARTIFACTS, CONFUSION

CHECK, LABELS = "metrics recomputed from predictions", "labels are those of the manifest"
MATRICES, AT_STEP = "confusion matrices follow from predictions", "predictions are those of their step"


def rescore(runs: Iterable[AuditedRun], data: PreparedData, tally: Tally) -> None:
    """Rescore every successful fine-tuning. Without its data, or with pruned predictions, the verdict is `not checked`."""
    for run in runs:
        if run.spec.kind != "finetune" or run.record.outcome != Outcome.ok or run.spec.data is None:
            continue
        gone = [name for name in run.pruned if name.startswith("predictions/")]
        if gone:
            tally.note(CHECK, "not checked", run.name, f"not re-scored: {gone[0]} was pruned")
            continue
        source = data.folder(run.spec.data)
        if isinstance(source, str):
            tally.note(CHECK, "not checked", run.name, f"not re-scored: {source}")
            continue
        assert run.spec.split is not None
        changed = data.changed_labels(run.spec.data, run.spec.split.test)
        if tally.expect(LABELS, changed is None, run.name, f"not re-scored: {changed}; prepare the data again"):
            _rescore(run, source, tally)


def _rescore(run: AuditedRun, source: Path, tally: Tally) -> None:
    try:
        scores = score_finetune(run.spec, run.folder / ARTIFACTS, source)
    except InvalidOutput as error:
        tally.expect(CHECK, False, run.name, str(error))
        return
    problem = (disagreement(scores.metrics, run.record.metrics) or "").replace("the stage says", "the record says")
    extra = sorted(set(run.record.metrics) - set(scores.metrics))
    problem = problem or (f"{extra[0]} cannot be computed from the predictions" if extra else "")
    tally.expect(CHECK, not problem, run.name, problem)
    check_confusion(run, scores.confusion, tally)
    _check_steps(run, tally)


def check_confusion(run: AuditedRun, computed: Confusion, tally: Tally) -> None:
    """The matrices beside a record match those of its predictions or counts."""
    try:
        shown = read_json(run.folder / CONFUSION, below=run.folder)
    except FileNotFoundError:
        return  # a run that should have them lists them among its files
    except (OSError, ValueError) as error:
        tally.expect(MATRICES, False, run.name, f"{CONFUSION} cannot be read: {error}")
        return
    wrong = [c for c, matrices in computed.items() if not isinstance(shown, dict) or shown.get(c) != matrices]
    text = f"{CONFUSION}: the counts of the {wrong[0] if wrong else ''} checkpoint differ from those of its predictions"
    tally.expect(MATRICES, not wrong, run.name, text)


def _check_steps(run: AuditedRun, tally: Tally) -> None:
    """The predictions of each checkpoint are those made at its step."""
    events = [e for e in read_events(run.folder / EVENTS_FILE) if e.event == "eval"]
    for checkpoint, event in selected_steps(run, events).items():
        if event.predictions_sha256 is None:
            continue  # written before validations had digests
        folder = run.folder / ARTIFACTS / "predictions" / checkpoint
        assert run.spec.split is not None
        try:
            predicted = {s: prediction_files.read_untyped(folder / f"{s}.npz") for s in run.spec.split.test}
        except DataError:
            continue  # reported with the scores
        same = prediction_files.digest(predicted) == event.predictions_sha256
        text = f"predictions/{checkpoint} differ from those scored after step {event.step}"
        tally.expect(AT_STEP, same, run.name, text)
