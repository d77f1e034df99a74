"""Coverage of a dataset's test split: expected, present and scored scenes, and the names of the missing ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, NonNegativeInt

from pretrain_bench.benchmarks.datasets.layout import Manifest
from pretrain_bench.benchmarks.datasets.splits import is_named, read_division, read_scene_list, scenes_for_testing
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.dataset import Dataset

_SHOWN = 3


class SplitCoverage(Spec):
    """How much of a dataset's test split is scored."""

    official: bool = Field(
        description="whether `expected` is the dataset's official test list; otherwise the test scenes of the given data, "
        "including those that could not be read"
    )
    expected: NonNegativeInt = Field(description="scenes of the test split")
    present: NonNegativeInt = Field(description="expected scenes that were read")
    scored: NonNegativeInt = Field(
        description="expected scenes that were read with all inputs of the task, and are scored"
    )
    missing: tuple[Annotated[str, Field(max_length=1024)], ...] = Field(
        (),
        description="names of the scenes that are not scored, starting with those that the data know; 'A to B' for "
        "consecutive numbers",
    )
    unlisted: NonNegativeInt = Field(0, description="scored scenes outside the official list")

    @property
    def whole(self) -> bool:
        """Whether the scored scenes are exactly the test split."""
        return self.scored == self.expected and not self.unlisted

    @property
    def mark(self) -> str:
        """The counts for a table cell: `67 of 68 test scenes`; empty if the whole split is scored."""
        return "" if self.whole else f"{self.scored + self.unlisted:,} of {self.expected:,} test scenes"

    @property
    def counts(self) -> str:
        """The counts in short form: `67/68`; empty if the whole split is scored."""
        return "" if self.whole else f"{self.scored + self.unlisted:,}/{self.expected:,}"

    @property
    def text(self) -> str:
        """The counts in a sentence, with the first names: `67 of the 68 official test scenes scored; missing: office_2`."""
        kind = "official test scenes" if self.official else "test scenes"
        text = f"{self.scored:,} of the {self.expected:,} {kind} scored"
        if self.unlisted:
            text += f", and {self.unlisted:,} that are not official"
        if self.present > self.scored:
            text += f"; {self.present - self.scored:,} lack what the task needs"
        if self.missing:
            more = len(self.missing) - _SHOWN
            text += f"; missing: {', '.join(self.missing[:_SHOWN])}" + (f" and {more:,} more" if more > 0 else "")
        return text


def official_test_scenes(dataset: Dataset) -> frozenset[str] | None:
    """Names of a dataset's official test scenes; None where no list of names ships with it."""
    if dataset.test_scenes_file is not None:
        return read_scene_list(dataset.test_scenes_file)
    if dataset.split_file is not None:
        return frozenset(read_division(dataset.split_file).test)
    if dataset.test_scene_numbers:
        return frozenset(f"{p}{i:06d}" for p, count in dataset.test_scene_numbers.items() for i in range(count))
    return None


def split_coverage(dataset: Dataset, manifest: Manifest, scored: Iterable[str]) -> SplitCoverage:
    """Compare `scored`, the test scenes of a run on this prepared dataset, with the dataset's test split."""
    scored = set(scored)
    read = {s.name for s in manifest.scenes}
    known = [*manifest.scenes, *manifest.left_out]
    in_data = scenes_for_testing((s.name for s in known), dataset, [s.name for s in known if s.test])
    names = official_test_scenes(dataset)
    if names is None:  # scenes on the dataset's own list that the data lack are missing too
        names_lacking = (n for n in dataset.test_scenes if not any(is_named(s.name, (n,)) for s in known))
        expected = in_data.union(names_lacking)
    else:
        expected = names
    count = max(len(expected), dataset.test_scene_count or 0)
    lost = (expected - scored) & {s.name for s in known}  # known to the data, so listed first
    missing = (*name_runs(lost), *name_runs(expected - scored - lost))
    unnamed = count - len(expected)
    return SplitCoverage(
        official=names is not None or dataset.test_scene_count is not None,
        expected=count,
        present=len(expected & read),
        scored=len(expected & scored),
        missing=(*missing, *([f"{unnamed:,} that the data do not name"] if unnamed else ())),
        unlisted=len(scored - expected),
    )


def name_runs(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted names, with consecutive numbers joined: `08__000003 to 08__000007`."""
    runs: list[list[str]] = []
    for name in sorted(names):
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    texts: list[str] = []
    for run in runs:
        texts += run if len(run) < 3 else [f"{run[0]} to {run[-1]}"]
    return tuple(texts)


def _follows(first: str, second: str) -> bool:
    one, two = (re.fullmatch(r"(.*?)(\d+)", name) for name in (first, second))
    if one is None or two is None:
        return False
    return (one[1], len(one[2]), int(one[2]) + 1) == (two[1], len(two[2]), int(two[2]))
