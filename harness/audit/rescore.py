"""Metrics computed again from saved predictions, or from the counts in a bundle: they must come out equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.static import AuditedRun
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import DataView
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset, prepared_with_manifest, ready
from pretrain_bench.harness.running.checks import InvalidOutput
from pretrain_bench.harness.running.scoring import disagreement, score_finetune
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import ARTIFACTS

CHECK = "metrics recomputed from predictions"


def rescore(runs: Iterable[AuditedRun], tally: Tally, say: Callable[[str], None]) -> None:
    """Score every successful fine-tuning. Without its data, or with pruned predictions, the verdict is `not checked`."""
    known: dict[str, PreparedDataset | str] = {}
    for run in runs:
        if run.spec.kind != "finetune" or run.record.outcome != Outcome.ok or run.spec.data is None:
            continue
        gone = [name for name in pruned(run.folder) if name.startswith("predictions/")]
        if gone:
            tally.note(CHECK, "not checked", run.name, f"not re-scored: {gone[0]} was pruned")
            continue
        data = run.spec.data
        if data.manifest_sha256 not in known:
            known[data.manifest_sha256] = find_data(data, say)
        source = known[data.manifest_sha256]
        if isinstance(source, str):
            tally.note(CHECK, "not checked", run.name, f"not re-scored: {source}")
            continue
        try:
            computed = score_finetune(run.spec, run.folder / ARTIFACTS, source).metrics
        except InvalidOutput as error:
            tally.expect(CHECK, False, run.name, str(error))
            continue
        problem = (disagreement(computed, run.record.metrics) or "").replace("the stage says", "the record says")
        extra = sorted(set(run.record.metrics) - set(computed))
        problem = problem or (f"{extra[0]} cannot be computed from the predictions" if extra else "")
        tally.expect(CHECK, not problem, run.name, problem)


def find_data(data: DataView, say: Callable[[str], None]) -> PreparedDataset | str:
    """The prepared data that a run was made from, or the reason why they cannot be had. Missing procedural data are generated
    again."""
    try:
        dataset = find(Dataset, data.dataset)
    except BenchError as error:
        return str(error)
    try:
        folder, manifest = prepared_with_manifest(data.dataset, data.manifest_sha256)
        return PreparedDataset(dataset, folder, manifest)
    except BenchError:
        pass
    if not dataset.synthetic:
        return f"the prepared data of {data.dataset!r} that it was made from are not here"
    for world in dataset.worlds:
        say(f"{data.dataset}: generating it again ({world}) from its seed")
        made = ready(data.dataset, {}, 1, False, lambda _: lambda items: items, lambda _: None, world)
        if made.manifest.sha256 == data.manifest_sha256:
            return made
    return f"this version generates {data.dataset!r} with another content"
