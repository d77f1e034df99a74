"""Advice on the runs that a command lacks for a claim: another method to compare with, and seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pretrain_bench.api.display import about
from pretrain_bench.harness.running.stage_runner import StageReport

SEEDS_OF_A_CLAIM = 3
"""Pre-training seeds, the units of an effect: two allow a test, three one with a usable power (docs/reports.md)."""
RECORDINGS = "--pretrain-data rgbd-folder=DIR (the folder of your RGB-D recordings)"
"""What a method that reads frames needs beside a task on real data."""
COUNTS = {1: "one", 2: "two"}


def next_steps(stages: Iterable[StageReport]) -> list[str]:
    """The missing runs for a claim about these stages, each with the option to type and an estimate. Empty if a second
    method and three pre-training seeds of each method are present."""
    stages = list(stages)
    seeds: dict[str, set[int]] = defaultdict(set)
    for stage in stages:
        if stage.record.cell is not None:
            seeds[stage.record.cell.method].add(stage.record.cell.pretrain_seed)
    if not seeds:
        return []
    steps = []
    if len(seeds) == 1:
        (method,) = seeds
        other = "scratch" if method != "scratch" else "ours"
        reads = "" if other == "scratch" or any(stage.record.synthetic for stage in stages) else f" {RECORDINGS}"
        steps.append(f"to compare {method} with something, add --method {other}{reads}")
    imported = {stage.record.method for stage in stages if stage.record.imported is not None} & seeds.keys()
    if imported:  # their seeds are files that only the user can bring
        few = sorted(method for method in imported if len(seeds[method]) < SEEDS_OF_A_CLAIM)
        files = ",".join(["FILE"] * SEEDS_OF_A_CLAIM)
        steps += [f"for a claim, one checkpoint per pre-training seed: --method {method}={files}" for method in few]
        if few:
            return steps
    held = set.intersection(*seeds.values())
    missing = SEEDS_OF_A_CLAIM - len(held)
    if missing > 0:
        free = [seed for seed in range(SEEDS_OF_A_CLAIM + len(held)) if seed not in held][:missing]
        a_seed = sum(s.record.ledger.wall_seconds for s in stages) / max(1, len(set.union(*seeds.values())))
        more = "one more seed" if missing == 1 else f"{COUNTS.get(missing, missing)} more seeds"
        steps.append(f"for a claim, {more}: --pretrain-seed {' '.join(map(str, free))}, {about(missing * a_seed)}")
    return steps
