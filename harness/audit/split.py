"""Recompute the split of a fine-tuning from the versioned rule and the manifest of the prepared data. The spec's own scenes
are not trusted: whoever omits scenes writes the spec too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache

from pretrain_bench.benchmarks.datasets.coverage import SplitCoverage, name_runs, split_coverage
from pretrain_bench.benchmarks.datasets.holdings import scenes_for_task
from pretrain_bench.benchmarks.datasets.layout import Manifest
from pretrain_bench.benchmarks.datasets.splits import Split, split_scenes
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.coverage import CHECK as WHOLE_SPLIT
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.prepared import PreparedData
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.audit.shipped import shipped
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.spec_reader import SharedSpec

ITSELF, REBUILT = "split", "split made again from the rule and the manifest"
PARTS = ("train", "selection", "test")
_NAMED = 3


def check_split(run: AuditedRun, data: PreparedData, tally: Tally) -> None:
    """The split's hash matches its scenes, no scene is in two parts, and the rule gives the same parts for the data."""
    spec = run.spec
    if spec.split is None or spec.data is None or spec.label_ratio is None:
        return
    dataset = shipped(Dataset, spec.data.dataset)
    for holds, text in _problems(run.shared):
        tally.expect(ITSELF, holds, run.name, text)
    if dataset is None:
        tally.note(REBUILT, "not checked", run.name, f"dataset {spec.data.dataset!r} is the user's own")
        return
    is_scored = run.record.outcome == Outcome.ok and not run.pruned
    manifest = data.manifest(spec.data, is_scored)
    if isinstance(manifest, str):
        tally.note(REBUILT, "not checked", run.name, manifest)
        return
    _check_rebuilt(run, dataset, data, manifest, tally)


Judged = tuple[bool, str]
"""Whether a check holds, and the message if it does not."""


@lru_cache(maxsize=1024)
def _problems(shared: SharedSpec) -> list[Judged]:
    """What can be judged of a split without the data; the same for all runs that share a spec."""
    split, data = shared.spec.split, shared.spec.data
    assert split is not None and data is not None
    dataset = shipped(Dataset, data.dataset)
    parts = {"version": split.version, **{part: sorted(getattr(split, part)) for part in PARTS}}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    scenes = [*split.train, *split.selection, *split.test]
    return [
        (digest == split.sha256, "the split's hash does not match its scenes"),
        (len(scenes) == len(set(scenes)), "a scene is in two parts of the split"),
        *(_of_test_scenes(split, scenes, dataset) if dataset is not None else ()),
    ]


def _of_test_scenes(split: Split, scenes: list[str], dataset: Dataset) -> Iterator[Judged]:
    """Without the data: no scene that the dataset names as a test scene trains, and every test scene is one."""
    if dataset.split_file is None or not scenes:
        prefixes = dataset.test_scene_prefixes
        if prefixes:
            wrong = [s for s in (*split.train, *split.selection) if s.startswith(prefixes)]
            yield not wrong, f"test scene {wrong[0] if wrong else ''} is trained on"
        return
    try:
        official = split_scenes(scenes, dataset, LabelRatio())  # test scenes do not depend on the ratio
    except BenchError as error:
        yield False, str(error)
        return
    yield set(split.test) == set(official.test), "its test scenes are not the dataset's test scenes"


def _check_rebuilt(run: AuditedRun, dataset: Dataset, data: PreparedData, manifest: Manifest, tally: Tally) -> None:
    spec = run.spec
    left_out, by_profile = run.record.left_out_scenes, _left_out_by_profile(run)
    if left_out and left_out != by_profile:
        text = f"its profile {spec.profile!r} leaves out the scenes that start with {', '.join(left_out)}"
        tally.note(REBUILT, "warning", run.name, text)
    which = (run.shared, left_out or by_profile)
    if which not in data.rebuilt:
        data.rebuilt[which] = _against_rule(spec, dataset, manifest, which[1])
    judged, coverage = data.rebuilt[which]
    for holds, text in judged:
        tally.expect(REBUILT, holds, run.name, text)
    if coverage is not None:
        tally.expect(WHOLE_SPLIT, coverage.whole or not run.record.metrics, run.name, coverage.text)


def _against_rule(
    spec: StageSpec, dataset: Dataset, manifest: Manifest, left_out: tuple[str, ...]
) -> tuple[list[Judged], SplitCoverage | None]:
    """A split against the one that the rule gives; and its coverage, where the rule gives one."""
    split, ratio = spec.split, spec.label_ratio
    assert split is not None and ratio is not None
    listed = tuple(s.name for s in manifest.scenes if not (left_out and s.name.startswith(left_out)))
    try:
        held = scenes_for_task(manifest, listed, spec.task_kind)
        tested = [s.name for s in manifest.scenes if s.test]
        expected = split_scenes(held, dataset, ratio, tested, spec.selection, _listed(ratio, split))
    except BenchError as error:
        return [(False, str(error))], None
    judged = []
    for part in PARTS:
        given, wanted = set(getattr(split, part)), set(getattr(expected, part))
        judged.append((given == wanted, _difference(part, given, wanted, str(ratio))))
    return judged, split_coverage(dataset, manifest, split.test)


def _listed(ratio: LabelRatio, split: Split) -> tuple[str, ...] | None:
    """The spec's own training scenes, for an official list that does not ship; None for other ratios."""
    listed = ratio.listed
    return split.train if listed is not None and listed.what == "scenes" and listed.needs_file else None


def _left_out_by_profile(run: AuditedRun) -> tuple[str, ...]:
    """Prefixes of scenes that the shipped profile excludes, for records older than the field that lists them."""
    profile = shipped(Profile, run.spec.profile)
    return profile.left_out_scenes.get(run.spec.data.dataset, ()) if profile and run.spec.data else ()


def _difference(part: str, given: set[str], wanted: set[str], ratio: str) -> str:
    text = f"{part}: {len(given):,} scenes; the rule gives {len(wanted):,} at {ratio}"
    for words, names in (("missing", wanted - given), ("not in the rule's split", given - wanted)):
        runs = name_runs(names)
        if runs:
            more = f" and {len(runs) - _NAMED:,} more" if len(runs) > _NAMED else ""
            text += f"; {words}: {', '.join(runs[:_NAMED])}{more}"
    return text
