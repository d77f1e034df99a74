"""What a stage will take, from runs of its kind on this machine, or roughly from a count of its work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes, feature_channels
from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.probes import FINETUNE, FeatureRecipe
from pretrain_bench.benchmarks.specs.recipes import voxels_of_scene
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.contract.run_length import run_length
from pretrain_bench.harness.contract.stage import MOST_TEST_FEATURE_BYTES, StageSpec
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.store.store import SPEC

# Rough numbers for a stage of which nothing is known yet; a plan marks them as rough. Those of full size were seen on an H100
# (docs/verification/gpu-headline.json), where `bench plan` must stay within a factor of three.
FLOPS_A_VOXEL = 6.5e6
"""Forward and backward of the full-width network: three times what ledgers give for a voxel, times 16 at quarter width."""
FORWARD_SHARE = 3
"""Forward and backward take three times the forward pass."""
FLOPS_A_PIXEL = 3e5
"""Forward and backward of the image network."""
FLOPS_A_CPU_SECOND, FLOPS_A_GPU_SECOND = 2e9, 3e12
GPU_SECONDS_A_POINT = 2e-6
"""For networks on points, where kernel launches and memory limit the speed rather than arithmetic."""
BYTES_A_WEIGHT = 4
AS_MANY_AS_ALLOWED = 10**9
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
        work, time = defaultdict[str, float](float), defaultdict[str, float](float)
        for record, folder in runs:
            if record["outcome"] != "ok":
                continue
            ledger = record.get("ledger") or {}
            device = "cuda" if ledger.get("gpu_seconds") else "cpu"
            kind = (device, *_kind_of_record(record, folder))
            self._seconds[kind].append(float(ledger.get("wall_seconds") or 0.0))
            self._bytes[kind].append(sum(a["bytes"] for a in (record.get("artifacts") or {}).values()))
            # Records from before training was counted whole have the forward passes of its sparse part.
            if flops := ledger.get("flops") or 3.0 * ledger.get("sparse_flops", 0):
                work[device] += flops
                time[device] += ledger["gpu_seconds" if device == "cuda" else "cpu_seconds"]
        self.rates = {device: work[device] / time[device] for device in work if time[device] > 0}
        """FLOPs of a second: of a CPU's, or of a GPU's."""

    def estimate(self, planned: PlannedStage, cpus: int) -> Estimate:
        """The mean of earlier runs of the same stage on such a device under the same budget and profile, else a count of the
        work."""
        spec = planned.spec
        on = spec.device if planned.recipe is not None or spec.kind == "features" else "cpu"
        kind = (on, *_kind_of_stage(planned))
        if kind in self._seconds:
            seconds, sizes = self._seconds[kind], self._bytes[kind]
            return Estimate(sum(seconds) / len(seconds), sum(sizes) // len(sizes), "earlier runs")
        source: Literal["same work", "rough"] = "same work" if spec.device in self.rates else "rough"
        if spec.device == "cuda":
            seconds_a_flop = 1 / self.rates.get("cuda", FLOPS_A_GPU_SECOND)
            needed = rough_flops(planned) * seconds_a_flop + rough_points(planned) * GPU_SECONDS_A_POINT
            if spec.limits.currency == Currency.gpu_seconds and planned.recipe is not None:
                exactly = spec.limits.uniformity == "exactly"
                needed = spec.limits.amount if exactly else min(needed, spec.limits.amount)
            return Estimate(needed, artifact_bytes(spec), source)
        rate = self.rates.get("cpu", FLOPS_A_CPU_SECOND) * min(spec.threads, cpus)
        return Estimate(rough_flops(planned) / rate, artifact_bytes(spec), source)


def _kind_of_record(record: dict[str, Any], folder: Path) -> tuple[object, ...]:
    cell = record.get("cell")
    if cell:
        return ("finetune", cell["task"], cell.get("protocol", FINETUNE), cell["budget"], cell["profile"])
    try:
        spec = read_json(folder / SPEC, below=folder)
        what = (spec["task"],) if spec["kind"] == "features" else (spec["method"], spec["stage"])
        return (spec["kind"], *what, spec["limits"]["budget"], spec["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _kind_of_stage(planned: PlannedStage) -> tuple[object, ...]:
    spec = planned.spec
    if spec.kind == "pretrain":
        what: tuple[object, ...] = (spec.method, spec.stage)
    else:
        what = (spec.task,) if planned.cell is None else (spec.task, spec.protocol)
    return (spec.kind, *what, spec.limits.budget, spec.profile)


def artifact_bytes(spec: StageSpec) -> int:
    """Size of what a stage leaves: a backbone, features, or predictions."""
    if spec.kind == "finetune":
        return PREDICTION_BYTES
    if spec.kind == "features":
        return _feature_bytes(spec)
    weights = 0
    for shape in backbone_shapes(spec.network).values():
        count = 1
        for side in shape:
            count *= side
        weights += count
    return weights * BYTES_A_WEIGHT


def _feature_bytes(spec: StageSpec) -> int:
    """The rows of training scenes and all voxels of test scenes, float32."""
    assert spec.split is not None and spec.recipe is not None
    recipe = FeatureRecipe.model_validate(spec.recipe)
    voxels = voxels_of_scene(recipe.voxel_metres, None)
    rows = len(spec.split.train) * min(voxels, recipe.rows_per_scene or voxels)
    test = min(len(spec.split.test) * voxels * feature_channels(spec.network) * BYTES_A_WEIGHT, MOST_TEST_FEATURE_BYTES)
    return int(rows * feature_channels(spec.network) * BYTES_A_WEIGHT + test)


def rough_flops(planned: PlannedStage) -> float:
    """Floating-point operations of a stage, from its recipe and budget; 0 for one that trains nothing."""
    if planned.spec.kind == "features":
        return _feature_flops(planned.spec)
    if planned.recipe is None or planned.spec.takes_no_step:
        return 0.0
    work, limits = planned.recipe.work_per_step(), planned.spec.limits
    per_step = work.voxels * FLOPS_A_VOXEL * planned.spec.network.width**2 + work.pixels * FLOPS_A_PIXEL
    if limits.currency == Currency.flops:
        return limits.amount if limits.uniformity == "exactly" else min(limits.amount, steps_of(planned) * per_step)
    return steps_of(planned) * per_step


def _feature_flops(spec: StageSpec) -> float:
    """Two forward passes over the training scenes, for the norms and for the features, and one over the test scenes."""
    assert spec.split is not None and spec.recipe is not None
    scenes = 2 * len(spec.split.train) + len(spec.split.test)
    voxels = voxels_of_scene(FeatureRecipe.model_validate(spec.recipe).voxel_metres, None)
    return scenes * voxels * FLOPS_A_VOXEL / FORWARD_SHARE * spec.network.width**2


def rough_points(planned: PlannedStage) -> float:
    """Points that pass through networks on points over the whole stage."""
    return steps_of(planned) * planned.recipe.work_per_step().points if planned.recipe else 0.0


def steps_of(planned: PlannedStage) -> int:
    """Optimiser steps that a stage will take: the recipe's, or as many as its budget allows; 0 for one that trains nothing. The
    recipe's where FLOPs or GPU seconds end it."""
    recipe = planned.recipe
    if recipe is None:
        return 0
    wanted = recipe.planned_steps or AS_MANY_AS_ALLOWED
    return run_length(planned.spec.limits, wanted, recipe.samples_per_step).expected_steps
