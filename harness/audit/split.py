"""Recompute the split of a fine-tuning from the versioned rule and the manifest of the prepared data. The spec's own scenes
are not trusted: whoever omits scenes writes the spec too."""

from __future__ import annotations

import hashlib
import json

from pretrain_bench.benchmarks.datasets.coverage import name_runs, split_coverage
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
from pretrain_bench.harness.store.retention import pruned

ITSELF, REBUILT = "split", "split made again from the rule and the manifest"
PARTS = ("train", "selection", "test")
_NAMED = 3


def check_split(run: AuditedRun, data: PreparedData, tally: Tally) -> None:
    """The split's hash matches its scenes, no scene is in two parts, and the rule gives the same parts for the data."""
    spec = run.spec
    if spec.split is None or spec.data is None or spec.label_ratio is None:
        return
    split, dataset = spec.split, shipped(Dataset, spec.data.dataset)
    parts = {"version": split.version, **{part: sorted(getattr(split, part)) for part in PARTS}}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    tally.expect(ITSELF, digest == split.sha256, run.name, "the split's hash does not match its scenes")
    scenes = [*split.train, *split.selection, *split.test]
    tally.expect(ITSELF, len(scenes) == len(set(scenes)), run.name, "a scene is in two parts of the split")
    if dataset is None:
        tally.note(REBUILT, "not checked", run.name, f"dataset {spec.data.dataset!r} is the user's own")
        return
    _check_test_scenes(run, dataset, tally)
    is_scored = run.record.outcome == Outcome.ok and not pruned(run.folder)
    manifest = data.manifest(spec.data, is_scored)
    if isinstance(manifest, str):
        tally.note(REBUILT, "not checked", run.name, manifest)
        return
    _check_rebuilt(run, split, dataset, manifest, tally)


def _check_test_scenes(run: AuditedRun, dataset: Dataset, tally: Tally) -> None:
    """Without the data: no scene that the dataset reserves for testing trains, and every test scene is one of these."""
    split = run.spec.split
    assert split is not None
    scenes = [*split.train, *split.selection, *split.test]
    if dataset.split_file is None or not scenes:
        prefixes = dataset.test_scene_prefixes
        if prefixes:
            wrong = [s for s in (*split.train, *split.selection) if s.startswith(prefixes)]
            tally.expect(ITSELF, not wrong, run.name, f"test scene {wrong[0] if wrong else ''} is trained on")
        return
    try:
        official = split_scenes(scenes, dataset, LabelRatio())  # test scenes do not depend on the ratio
    except BenchError as error:
        tally.expect(ITSELF, False, run.name, str(error))
        return
    same = set(split.test) == set(official.test)
    tally.expect(ITSELF, same, run.name, "its test scenes are not the dataset's test scenes")


def _check_rebuilt(run: AuditedRun, split: Split, dataset: Dataset, manifest: Manifest, tally: Tally) -> None:
    spec = run.spec
    assert spec.label_ratio is not None and spec.data is not None
    left_out, by_profile = run.record.left_out_scenes, _left_out_by_profile(run)
    if left_out and left_out != by_profile:
        text = f"its profile {spec.profile!r} leaves out the scenes that start with {', '.join(left_out)}"
        tally.note(REBUILT, "warning", run.name, text)
    left_out = left_out or by_profile
    listed = tuple(s.name for s in manifest.scenes if not (left_out and s.name.startswith(left_out)))
    try:
        held = scenes_for_task(manifest, listed, spec.task_kind)
        tested = [s.name for s in manifest.scenes if s.test]
        expected = split_scenes(
            held, dataset, spec.label_ratio, tested, spec.selection, _listed(spec.label_ratio, split)
        )
    except BenchError as error:
        tally.expect(REBUILT, False, run.name, str(error))
        return
    for part in PARTS:
        given, wanted = set(getattr(split, part)), set(getattr(expected, part))
        tally.expect(REBUILT, given == wanted, run.name, _difference(part, given, wanted, str(spec.label_ratio)))
    coverage = split_coverage(dataset, manifest, split.test)
    tally.expect(WHOLE_SPLIT, coverage.whole or not run.record.metrics, run.name, coverage.text)


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
