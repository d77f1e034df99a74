"""`make verify-values`: values that violate a format, in every layout: more than 2,000 damaged inputs.

Each tiny input is prepared undamaged, then with one mutation (value_mutations.py), which must give an error, a problem that
the undamaged input does not have, or identical prepared files. Specs (YAML) and weight files are damaged in the same way.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pretrain_bench.benchmarks.datasets.layout import Manifest, read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.methods.training.checkpoint import load_weights, save_weights
from tests.verification.report import write_report
from tests.verification.tiny_inputs import WRITERS
from tests.verification.value_mutations import mutations

SEED, ROUNDS = 20261129, 11
Outcome = Literal["error", "problem", "equal", "silent"]


class Case(NamedTuple):
    """One damaged input."""

    layout: str
    mutation: str
    round: int


def read(root: Path, dataset: Dataset, cache: Path) -> Manifest:
    """Prepare a folder and read its manifest. Raises BenchError."""
    shutil.rmtree(cache, ignore_errors=True)
    return read_manifest(prepare(dataset, root, cache, frame_stride=1, strict=False, progress=lambda names: names))


def dataset_outcome(case: Case, sound: Path, manifest: Manifest, scratch: Path) -> Outcome:
    """The outcome of preparing an input with one mutation."""
    root = scratch / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root)
    mutations(case.layout)[case.mutation](root, np.random.default_rng([SEED, case.round]))
    try:
        found = read(root, find(Dataset, case.layout), scratch / "cache")
    except BenchError:
        return "error"
    if set(found.problems) - set(manifest.problems):
        return "problem"
    return "equal" if found.files == manifest.files else "silent"


BUDGET = """\
name: tiny
version: 1
description: a budget
default_profile: smoke
pretrain: {currency: optimizer_steps, optimizer_steps: 10}
finetune:
  currency: optimizer_steps
  optimizer_steps: 90
"""
SPEC_MUTATIONS = ("key given twice", "leading zeros", "base 60", "sign")


def spec_outcome(case: Case, scratch: Path) -> Outcome:
    """The outcome of reading a damaged budget."""
    rng, lines, path = np.random.default_rng([SEED, case.round]), BUDGET.splitlines(), scratch / "budget.yaml"
    path.write_text(BUDGET)
    sound = load_spec(path, Budget)
    text = BUDGET
    if case.mutation == "key given twice":
        at = int(rng.integers(len(lines)))
        copied = lines[at] if lines[at] != "finetune:" else lines[at] + " {}"
        lines.insert(int(rng.integers(at, len(lines))) if at < 5 and at != 5 else at, copied)
        text = "\n".join(lines) + "\n"
    elif case.mutation == "leading zeros":
        zeros = "0" * int(rng.integers(1, 4))
        text = (
            BUDGET.replace(": 10}", f": {zeros}10}}") if rng.random() < 0.5 else BUDGET.replace(": 90", f": {zeros}90")
        )
    elif case.mutation == "base 60":
        text = BUDGET.replace(": 90", f": {rng.integers(1, 60)}:{rng.integers(0, 60):02d}")
    else:
        text = BUDGET.replace(": 90", f": -{rng.integers(1, 1000)}")
    path.write_text(text)
    try:
        return "equal" if load_spec(path, Budget) == sound else "silent"
    except BenchError:
        return "error"


def weights_outcome(case: Case, scratch: Path) -> Outcome:
    """The outcome of reading weights with one non-finite value."""
    rng = np.random.default_rng([SEED, case.round])
    state = {f"layer{i}": torch.ones(3, 4) for i in range(3)}
    state[f"layer{rng.integers(3)}"].view(-1)[int(rng.integers(12))] = float(rng.choice([np.nan, np.inf, -np.inf]))
    path = scratch / "weights.safetensors"
    save_weights(state, path)
    try:
        load_weights(path)
    except BenchError:
        return "error"
    return "silent"


def cases(rounds: int) -> Iterator[Case]:
    """All mutations of all layouts; each round uses another input and other random numbers."""
    kinds = [(layout, name) for layout in WRITERS for name in mutations(layout)]
    kinds += [("spec", name) for name in SPEC_MUTATIONS] + [("weights", "not finite")]
    return (Case(*kind, number) for number in range(rounds) for kind in kinds)


def run(chosen: list[Case], scratch: Path) -> dict[Case, Outcome]:
    """The outcome of each case."""
    sound: dict[tuple[str, int], tuple[Path, Manifest]] = {}
    for layout, number in sorted({(c.layout, c.round) for c in chosen if c.layout in WRITERS}):
        root = scratch / "sound" / f"{layout}-{number}"
        WRITERS[layout](root, SEED + number)
        manifest = read(root, find(Dataset, layout), scratch / "cache")
        assert not manifest.problems, f"the undamaged input of {layout} has problems: {manifest.problems}"
        sound[layout, number] = root, manifest
    outcomes = {}
    for done, case in enumerate(chosen, start=1):
        if case.layout in WRITERS:
            outcomes[case] = dataset_outcome(case, *sound[case.layout, case.round], scratch)
        else:
            outcomes[case] = (spec_outcome if case.layout == "spec" else weights_outcome)(case, scratch)
        if done % 100 == 0:
            print(f"{done} of {len(chosen)} inputs", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    """Run all cases, then write docs/verification/values.json; returns 1 if an input silently gave a different result."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(list(cases(ROUNDS)), Path(folder))
    results: dict[str, Any] = {}
    for (layout, name), counts in sorted(
        {(c.layout, c.mutation): Counter(o for d, o in outcomes.items() if d[:2] == c[:2]) for c in outcomes}.items()
    ):
        results.setdefault(layout, {})[name] = dict(sorted(counts.items()))
    total = Counter(outcomes.values())
    what = "values that no format promises (scales, signs, transposes, offsets, dropped files), in every reader"
    verdict = "ok" if not total["silent"] and len(outcomes) >= 2000 else "failed"
    write_report("values", what, verdict, seed=SEED, inputs=len(outcomes), outcomes=dict(total), results=results)
    return int(verdict != "ok")


if __name__ == "__main__":
    sys.exit(main())
