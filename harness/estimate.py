"""What a stage will take, from runs of its kind on this machine, or roughly from a count of its work."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.backbone import backbone_shapes
from benchmarks.specs import DepthContrast, DetectionRecipe, FramePairs, OursImages, OursPoints, SemanticRecipe
from harness.contract.stage import StageSpec, recipe_steps
from harness.graph import PlannedStage
from harness.store import SPEC

# Rough numbers for a stage of which nothing is known yet; a plan marks them as rough.
FLOPS_A_VOXEL = 1.2e7
"""Forward and backward of the full-width network: three times what the ledgers of small runs give for a voxel, times 16."""
FLOPS_A_PIXEL = 3e5
"""Forward and backward of the image network."""
VOXELS_A_FRAME, VOXELS_A_SCENE = 15_000, 60_000
"""Where a recipe sets no bound."""
FLOPS_A_CPU_SECOND, FLOPS_A_GPU_SECOND = 2e9, 2e12
BYTES_A_WEIGHT = 4
PREDICTION_BYTES = 2 << 20


class Estimate(NamedTuple):
    """Seconds of wall time, bytes of artifacts, and where the number of seconds comes from."""

    seconds: float
    bytes: int
    source: Literal["earlier runs", "same work", "rough"]


class History:
    """Mean time and size of earlier runs, by what they did."""

    def __init__(self, runs: Iterable[tuple[dict[str, Any], Path]]) -> None:
        self._seconds: dict[tuple[object, ...], list[float]] = defaultdict(list)
        self._bytes: dict[tuple[object, ...], list[int]] = defaultdict(list)
        work = time = 0.0
        for record, folder in runs:
            if record["outcome"] != "ok":
                continue
            kind = _kind_of_record(record, folder)
            ledger = record.get("ledger") or {}
            self._seconds[kind].append(float(ledger.get("wall_seconds") or 0.0))
            self._bytes[kind].append(sum(a["bytes"] for a in (record.get("artifacts") or {}).values()))
            if ledger.get("sparse_flops"):
                work += 3.0 * ledger["sparse_flops"]
                time += ledger["cpu_seconds"]
        self.rate = work / time if time > 0 else None

    def estimate(self, planned: PlannedStage, cpus: int) -> Estimate:
        """The mean of earlier runs of the same stage under the same budget and profile, else a count of the work."""
        kind = _kind_of_stage(planned)
        if kind in self._seconds:
            seconds, sizes = self._seconds[kind], self._bytes[kind]
            return Estimate(sum(seconds) / len(seconds), sum(sizes) // len(sizes), "earlier runs")
        spec = planned.spec
        flops = rough_flops(spec)
        if spec.device == "cuda":
            return Estimate(flops / FLOPS_A_GPU_SECOND, artifact_bytes(spec), "rough")
        threads = min(spec.threads, cpus)
        if self.rate is not None:
            return Estimate(flops / (self.rate * threads), artifact_bytes(spec), "same work")
        return Estimate(flops / (FLOPS_A_CPU_SECOND * threads), artifact_bytes(spec), "rough")


def _kind_of_record(record: dict[str, Any], folder: Path) -> tuple[object, ...]:
    cell = record.get("cell")
    if cell:
        return ("finetune", cell["task"], cell["budget"], cell["profile"])
    try:
        spec = json.loads((folder / SPEC).read_bytes())
        return ("pretrain", spec["method"], spec["stage"], spec["limits"]["budget"], spec["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _kind_of_stage(planned: PlannedStage) -> tuple[object, ...]:
    spec = planned.spec
    what = (spec.task,) if planned.cell is not None else (spec.method, spec.stage)
    return (spec.kind, *what, spec.limits.budget, spec.profile)


def artifact_bytes(spec: StageSpec) -> int:
    """Size of what a stage leaves: a backbone, or predictions."""
    if spec.kind == "finetune":
        return PREDICTION_BYTES
    weights = 0
    for shape in backbone_shapes(spec.network).values():
        count = 1
        for side in shape:
            count *= side
        weights += count
    return weights * BYTES_A_WEIGHT


def rough_flops(spec: StageSpec) -> float:
    """Floating-point operations of a stage, from its recipe and budget; 0 for one that trains nothing."""
    recipe, width = spec.recipe, spec.network.width**2
    if isinstance(recipe, OursImages):
        steps = recipe_steps(spec.limits, recipe.steps, recipe.images_per_step)
        return steps * 2 * recipe.images_per_step * recipe.image_side**2 * FLOPS_A_PIXEL
    if isinstance(recipe, OursPoints):
        voxels = recipe.frames_per_step * (recipe.max_voxels_per_frame or VOXELS_A_FRAME)
        return recipe_steps(spec.limits, recipe.steps, recipe.frames_per_step) * voxels * FLOPS_A_VOXEL * width
    if isinstance(recipe, FramePairs):
        voxels = 2 * recipe.pairs_per_step * (recipe.max_voxels_per_frame or VOXELS_A_FRAME)
        return recipe_steps(spec.limits, recipe.steps, recipe.pairs_per_step) * voxels * FLOPS_A_VOXEL * width
    if isinstance(recipe, DepthContrast):
        voxels = 2 * recipe.scans_per_step * min(VOXELS_A_FRAME, recipe.points)
        steps = recipe_steps(spec.limits, recipe.steps or 10**9, recipe.scans_per_step)
        return steps * voxels * FLOPS_A_VOXEL * width
    if isinstance(recipe, SemanticRecipe):
        voxels = recipe.batch * (recipe.max_voxels_per_scene or VOXELS_A_SCENE)
        return recipe_steps(spec.limits, recipe.steps, recipe.batch) * voxels * FLOPS_A_VOXEL * width
    if isinstance(recipe, DetectionRecipe):
        voxels = recipe.batch * min(recipe.points, VOXELS_A_SCENE)
        return recipe_steps(spec.limits, recipe.steps, recipe.batch) * voxels * FLOPS_A_VOXEL * width
    return 0.0
