"""Check recorded contamination against the specs of the pre-training, and official label lists against those that ship."""

from __future__ import annotations

from functools import lru_cache

from pretrain_bench.benchmarks.datasets.contamination import Contamination
from pretrain_bench.benchmarks.datasets.splits import read_scene_list
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, behind
from pretrain_bench.harness.contract.contamination import contamination_of
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.spec_reader import SharedSpec

CHECK = "contamination matches the specs"
LIST_CHECK = "official labels match their list"


def check_contamination(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    """Recompute the contamination of a fine-tuning from the specs behind it, and compare. For records older than the field, only
    note the recomputed value."""
    record, spec = run.record, run.spec
    if spec.kind != "finetune" or spec.split is None:
        return
    subject, stages = run.name, behind(run, runs)
    if stages is None:
        return  # the missing stage has its own finding
    try:
        computed = _computed(run.shared, tuple(stage.shared for stage in stages))
    except WrongUse as error:
        tally.note(CHECK, "not checked", subject, str(error))
        return
    if record.contamination is not None:
        tally.expect(
            CHECK, record.contamination == computed, subject,
            f"the record has {record.contamination.flag} ({record.contamination.text}), "
            f"the specs give {computed.flag if computed else 'nothing'} ({computed.text if computed else ''})",
        )  # fmt: skip
    elif computed is not None and computed.mark:
        tally.note(CHECK, "warning", subject, f"the record is older than this field; the specs give: {computed.mark}")


@lru_cache(maxsize=1024)
def _computed(shared: SharedSpec, stages: tuple[SharedSpec, ...]) -> Contamination | None:
    return contamination_of(shared.spec, [stage.spec for stage in stages])


def check_official_labels(record: Record, spec: StageSpec, tally: Tally) -> None:
    """The training scenes of a shipped official list are those of the list, and cell and spec name the same file."""
    ratio = spec.label_ratio
    if ratio is None or ratio.official is None or spec.split is None:
        return
    subject = f"{record.kind}/{record.key}"
    in_cell = record.cell.label_ratio if record.cell else ratio
    tally.expect(LIST_CHECK, in_cell == ratio, subject, f"cell and spec name different files of {ratio}")
    try:
        listed = ratio.listed
    except WrongUse as error:
        tally.note(LIST_CHECK, "not checked", subject, str(error))
        return
    if listed is not None and listed.ships is not None:
        same = ratio.sha256 == listed.sha256 and set(spec.split.train) == read_scene_list(listed.ships)
        tally.expect(LIST_CHECK, same, subject, f"its training scenes are not those of {ratio}")
    elif ratio.sha256 is not None:
        known = listed is not None and listed.sha256 == ratio.sha256
        if not known:
            text = f"the file of {ratio} (sha256 {ratio.sha256[:12]}...) is not a known distributed version"
            tally.note(LIST_CHECK, "warning", subject, text)
