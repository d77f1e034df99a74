"""Metrics computed again from saved predictions, or from the counts in a bundle: they must come out equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.static import AuditedRun
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import DataView
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import DataSources, prepared_with_manifest
from pretrain_bench.harness.running.checks import InvalidOutput
from pretrain_bench.harness.running.scoring import disagreement, score_finetune
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import ARTIFACTS

CHECK = "metrics recomputed from predictions"


def rescore(runs: Iterable[AuditedRun], tally: Tally, say: Callable[[str], None]) -> None:
    """Score every successful fine-tuning. Without its data, or with pruned predictions, the verdict is `not checked`."""
    known: dict[str, Path | str] = {}
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


def find_data(data: DataView, say: Callable[[str], None]) -> Path | str:
    """The folder of the prepared data that a run was made from, or the reason why they cannot be had.

    Data of a user's own dataset are found like any other. Missing procedural data are generated again.
    """
    try:
        return prepared_with_manifest(data.dataset, data.manifest_sha256)[0]
    except BenchError:
        pass
    if data.dataset not in available(Dataset) or not find(Dataset, data.dataset).synthetic:
        return f"the prepared data of {data.dataset!r} that it was made from are not here"
    for world in find(Dataset, data.dataset).worlds:
        say(f"{data.dataset}: generating it again ({world}) from its seed")
        made = DataSources(world=world).prepare(data.dataset)
        if made.manifest.sha256 == data.manifest_sha256:
            return made.folder
    return f"this version generates {data.dataset!r} with another content"
