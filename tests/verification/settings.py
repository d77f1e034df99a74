"""Settings on which a report depends besides code: recipes, budget and procedural world, as one hash per method."""

from __future__ import annotations

import hashlib

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.recipes import stage_recipe

LEARNING_METHODS = ("ours", "pointcontrast", "csc", "depthcontrast", "msc")
LEARNING_PROBED = LEARNING_METHODS
"""Methods with a linear classifier on their frozen features."""
LEARNING_BUDGET, LEARNING_DATASET = "tiny", "synth-scannet"
PROBED = "probed methods"


def settings_hashes(report: str) -> dict[str, str]:
    """Hashes by method, including probed methods; empty for reports that depend on code alone."""
    if report != "learning":
        return {}
    hashes = {method: settings_sha256(method, LEARNING_BUDGET, LEARNING_DATASET) for method in LEARNING_METHODS}
    return {**hashes, PROBED: hashlib.sha256(" ".join(LEARNING_PROBED).encode()).hexdigest()}


def settings_sha256(method: str, budget_name: str, dataset: str) -> str:
    """Hash of a method's recipes and network, the budget and its training world."""
    profile, budget, world = (
        find(Profile, budget_name),
        find(Budget, budget_name),
        find(Dataset, dataset).sized(budget_name),
    )
    known = find(Method, method)
    recipes = [r.model_dump_json() for s in known.stages if (r := stage_recipe(known, s, profile))]
    parts = [*recipes, profile.network.model_dump_json(), budget.model_dump_json(), world.model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
