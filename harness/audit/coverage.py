"""Check that a run scores the whole test split of its dataset, as its task requires."""

from __future__ import annotations

from functools import lru_cache

from pretrain_bench.benchmarks.datasets.coverage import name_runs, official_test_scenes
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.audit.shipped import shipped
from pretrain_bench.harness.store.spec_reader import SharedSpec

CHECK = "the whole test split is scored"
_NAMED = 5


def check_coverage(run: AuditedRun, tally: Tally) -> None:
    """A scored fine-tuning uses the scenes of the shipped official list, and spec and record agree on the counts.

    Without an official list only the spec's counts, made when the data were prepared, can be checked.
    """
    record, spec = run.record, run.spec
    if not record.metrics or spec.split is None or spec.data is None:
        return
    subject = run.name
    if spec.coverage is not None:
        alike = record.coverage is None or record.coverage == spec.coverage
        tally.expect(
            "test scenes are counted correctly", alike, subject, "the record's test scene counts differ from the spec's"
        )
    problem = _official_problem(run.shared)
    if spec.coverage is not None and not spec.coverage.whole:
        problem = spec.coverage.text  # names the scenes that the data had first
    tally.expect(CHECK, problem is None, subject, problem or "")


@lru_cache(maxsize=1024)
def _official_problem(shared: SharedSpec) -> str | None:
    """How the scored scenes differ from the shipped official test list; None if they do not, or if there is no list."""
    spec = shared.spec
    dataset = shipped(Dataset, spec.data.dataset) if spec.data is not None else None
    if dataset is None or spec.split is None:
        return None
    scored = set(spec.split.test)
    names = official_test_scenes(dataset)
    if names is None:
        count = dataset.test_scene_count
        return None if count in (None, len(scored)) else f"{len(scored):,} of the {count:,} official test scenes scored"
    if scored == names:
        return None
    text = f"{len(scored & names):,} of the {len(names):,} official test scenes scored"
    missing, more = name_runs(names - scored), sorted(scored - names)
    if missing:
        others = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        text += f"; missing: {', '.join(missing[:_NAMED])}{others}"
    return text + (f"; not official: {', '.join(more[:_NAMED])}" if more else "")
