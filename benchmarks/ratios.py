"""Which scenes train, which are held out for checkpoint selection, which test; and nested label ratios.

The rule (version 1). Test scenes are those that the dataset names. The other scenes are put in the order of
sha256("bench-split-1:" + scene name). With five scenes or more, the first tenth (rounded, at least one) is held out of
every ratio for checkpoint selection; with fewer, none is, because a class would often vanish with it. A ratio of p per
cent takes the first max(1, ceil(p/100 * n)) of the remaining n, so 5 % lies inside 10 %.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.specs import LabelRatio, Spec

SPLIT_VERSION = 1
HOLD_OUT_FROM = 5


class Split(Spec):
    """Scene names, and the hash of all of them."""

    version: int
    train: tuple[str, ...]
    selection: tuple[str, ...]
    test: tuple[str, ...]
    sha256: str


def _rank(scene: str) -> str:
    return hashlib.sha256(f"bench-split-{SPLIT_VERSION}:{scene}".encode()).hexdigest()


def split_scenes(scenes: Iterable[str], test_prefixes: tuple[str, ...], ratio: LabelRatio) -> Split:
    """Divide scenes for fine-tuning. Raises DataError where a part that cannot be empty would be."""
    scenes = sorted(scenes)
    test = tuple(s for s in scenes if s.startswith(test_prefixes)) if test_prefixes else ()
    others = sorted((s for s in scenes if s not in set(test)), key=_rank)
    if not test:
        raise DataError(f"no test scene: none of {len(scenes)} scenes starts with {' or '.join(test_prefixes)}")
    if not others:
        raise DataError(f"no training scene: all {len(scenes)} scenes start with {' or '.join(test_prefixes)}")
    held = max(1, round(0.1 * len(others))) if len(others) >= HOLD_OUT_FROM else 0
    selection, rest = others[:held], others[held:]
    train = rest[: max(1, math.ceil(ratio.percent / 100 * len(rest) - 1e-9))]
    parts = {"version": SPLIT_VERSION, "train": sorted(train), "selection": sorted(selection), "test": sorted(test)}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Split.model_validate({**parts, "sha256": digest})


def read_scene_list(name: str) -> frozenset[str]:
    """Scene names of an official list, one a line, in `benchmarks/splits/`."""
    return frozenset((Path(__file__).parent / "splits" / name).read_text(encoding="utf-8").split())
