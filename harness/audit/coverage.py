"""Does a run score the whole test split of its dataset, as its task says?"""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.coverage import name_runs, official_test_scenes
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.catalog import available, find

CHECK = "the whole test split is scored"
_NAMED = 5


def check_coverage(record: Record, spec: StageSpec, tally: Tally) -> None:
    """Of a scored fine-tuning: the scenes are those of the official list that ships, and spec and record count them alike.

    Where the dataset has no official list, the counts of the spec, made when its data were prepared, are all there is.
    """
    if not record.metrics or spec.split is None or spec.data is None:
        return
    subject = f"{record.kind}/{record.key}"
    if spec.coverage is not None:
        alike = record.coverage is None or record.coverage == spec.coverage
        tally.expect(
            "test scenes are counted as they are", alike, subject, "the record counts other scenes than the spec"
        )
    problem = _official_problem(spec.data.dataset, set(spec.split.test))
    if spec.coverage is not None and not spec.coverage.whole:
        problem = spec.coverage.text  # it names the scenes that the data held first
    tally.expect(CHECK, problem is None, subject, problem or "")


def _official_problem(name: str, scored: set[str]) -> str | None:
    """In what the scored scenes differ from the official test list of a dataset that ships; None where they do not, or where
    there is no list."""
    if name not in available(Dataset):
        return None
    try:
        dataset = find(Dataset, name)
    except BenchError as error:
        return str(error)
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
