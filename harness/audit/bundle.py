"""Checks specific to bundles: list of files, Merkle root, signature, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.metrics.scorer import (
    Counts,
    LabelTotals,
    confusion_of_counts,
    counts_problem,
    label_totals,
    metrics_of_counts,
)
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.prepared import PreparedData
from pretrain_bench.harness.audit.rescore import check_confusion
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.bundle import COUNTS, MAX_BYTES, Contents, mismatches
from pretrain_bench.harness.store.signatures import signature_of, signature_problem

RECOMPUTED, POSSIBLE = "metrics recomputed from counts", "counts are those of the test scenes"


def check_contents(folder: Path, contents: Contents, tally: Tally) -> None:
    """Compare an unpacked bundle with its own list of files."""
    check = "bundle holds what it lists"
    wrong = list(mismatches(folder, contents))
    for name, problem in wrong:
        tally.expect(check, False, name, problem)
    for _ in range(len(contents.files) - len(wrong)):
        tally.expect(check, True, "", "")


def check_merkle(contents: Contents, runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Recompute the root over all records and compare it with the one that was packed."""
    root = chain.merkle_root(r.record.sha256 for r in runs.values()) if runs else ""
    tally.expect("Merkle root over the records", root == contents.merkle_root, "bundle", f"recomputed as {root[:16]}…")


def check_signature(path: Path, signers: Path | None, signer: str | None, tally: Tally) -> None:
    """Check whether a file, such as a bundle's list of files, has a signature, and whether it is the expected signer's."""
    check, subject = "signature", path.name
    if not signature_of(path).is_file():
        tally.note(check, "not checked" if signers is None else "failed", subject, "is not signed")
        return
    if signers is None or signer is None:
        tally.note(
            check, "not checked", subject, "is signed; give the expected signer with --signers FILE --signer NAME"
        )
        return
    try:
        problem = signature_problem(path, signers, signer)
    except EnvironmentCannot as error:
        tally.note(check, "not checked", subject, str(error))
        return
    tally.expect(check, problem is None, subject, problem or "")


def rescore_counts(runs: Iterable[AuditedRun], data: PreparedData, tally: Tally) -> None:
    """Recompute metrics and confusion matrices from a bundle's counts, for reviewers without the data.

    The counts must cover the split's test scenes, be possible, and agree with each other about the labels.
    """
    totals: dict[tuple[str, ...], LabelTotals] = {}
    for run in runs:
        path = run.folder / COUNTS
        if not path.is_file() or run.spec.data is None or run.spec.split is None:
            continue
        try:
            counts = read_json(path, MAX_BYTES)
            problem = _impossible(run, counts, data) or _other_labels(run, counts, totals)
            if not tally.expect(POSSIBLE, problem is None, run.name, problem or ""):
                continue
            computed: dict[str, float | None] = {}
            for checkpoint, scenes in counts.items():
                computed |= {f"{n}_{checkpoint}": v for n, v in metrics_of_counts(list(scenes.values())).items()}
            confusion = {c: m for c, scenes in counts.items() if (m := confusion_of_counts(list(scenes.values())))}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            tally.expect(RECOMPUTED, False, run.name, f"{COUNTS} cannot be read: {error}")
            continue
        _compare(run, set(counts), computed, tally)
        check_confusion(run, confusion, tally)


def _compare(run: AuditedRun, counted: set[str], computed: dict[str, float | None], tally: Tally) -> None:
    uncounted = set(CHECKPOINTS) - counted
    recorded = {n: v for n, v in run.record.metrics.items() if n.rpartition("_")[2] not in uncounted}
    for checkpoint in sorted({n.rpartition("_")[2] for n in run.record.metrics} & uncounted):
        tally.note(RECOMPUTED, "not checked", run.name, f"the bundle has no counts of the {checkpoint} checkpoint")
    wrong = [n for n, value in recorded.items() if not _same(computed.get(n), value)]
    text = f"{wrong[0]}: the record has {recorded[wrong[0]]}, the counts give {computed.get(wrong[0])}" if wrong else ""
    tally.expect(RECOMPUTED, not wrong, run.name, text)


def _impossible(run: AuditedRun, counts: dict[str, dict[str, Counts]], data: PreparedData) -> str | None:
    """Why these cannot be the counts of the run's test scenes; None if they can."""
    assert run.spec.split is not None and run.spec.data is not None
    wanted, classes = set(run.spec.split.test), len(run.spec.data.classes)
    manifest = data.manifest(run.spec.data, is_scored=False)
    points = {} if isinstance(manifest, str) else {s.name: s.points for s in manifest.scenes}
    for checkpoint, scenes in counts.items():
        if checkpoint not in CHECKPOINTS:
            return f"{checkpoint!r} is not a checkpoint"
        if set(scenes) != wanted:
            missing, more = sorted(wanted - set(scenes)), sorted(set(scenes) - wanted)
            text = f"{checkpoint}: counts of {len(scenes)} scenes, the split has {len(wanted)} test scenes"
            text += f"; missing: {', '.join(missing[:3])}" if missing else ""
            return text + (f"; not in the split: {', '.join(more[:3])}" if more else "")
        for scene, counted in scenes.items():
            if (problem := counts_problem(counted, classes, points.get(scene))) is not None:
                return f"{checkpoint}, {scene}: {problem}"
    return None


def _other_labels(
    run: AuditedRun, counts: dict[str, dict[str, Counts]], known: dict[tuple[str, ...], LabelTotals]
) -> str | None:
    """A message if counts imply different labels for one scene; its labels are the same for all checkpoints and runs of a
    task."""
    spec = run.spec
    assert spec.data is not None
    task = (spec.data.manifest_sha256, spec.task_kind, f"{spec.task_recipe.voxel_metres}", *spec.data.classes)
    for checkpoint, scenes in counts.items():
        for scene, counted in scenes.items():
            totals = label_totals(counted)
            if known.setdefault((*task, scene), totals) != totals:
                return f"{checkpoint}, {scene}: its labels differ from those in other counts of the same scene"
    return None


def _same(one: float | None, two: float | None) -> bool:
    return one == two if one is None or two is None else abs(one - two) < 1e-9
