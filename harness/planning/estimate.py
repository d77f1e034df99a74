"""Estimate time and size of a stage, from earlier runs of its kind on this machine, or roughly from its amount of work."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes, feature_channels
from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.probes import FINETUNE, FeatureRecipe
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_scene
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.contract.run_length import run_length
from pretrain_bench.harness.contract.stage import MOST_TEST_FEATURE_BYTES, StageSpec
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.store.store import SPEC

FLOPS_A_VOXEL = 6.5e6
"""FLOPs per voxel of the full-width network, forward and backward: 3 times the ledgers' forward count, times 16 from quarter
width."""
FORWARD_SHARE = 3
"""Forward and backward take three times the forward pass."""
FLOPS_A_PIXEL = 3e5
"""Forward and backward of the image network."""
RATES_OF_DEVICE = {"cpu": "cpu", "cuda": "h100"}
"""Default rates (`benchmarks/configs/rates`) of a machine without earlier runs."""
NOISE = 1.1
"""Least uncertainty of times from earlier runs: run-to-run variation (docs/sparse.md#speed)."""
BYTES_A_WEIGHT = 4
IMAGE_NETWORK_BYTES = 98_000_000
"""Size of the 2D network that `ours` passes between its stages."""
AS_MANY_AS_ALLOWED = 10**9
CHECKPOINTS_PREDICTED = 3
BYTES_A_VOXEL_PREDICTED = {"semantic": 0.25, "instance": 1.25}
"""Compressed bytes: 0.25 for a voxel's class in docs/study/tiny.bundle.tar.zst; instances add four bytes before compression."""
BYTES_A_BOX_PREDICTED = 4 * (8 + 18)


class Estimate(NamedTuple):
    """Seconds of wall time, bytes of artifacts, and the source of the seconds."""

    seconds: float
    bytes: int
    source: Literal["earlier runs", "calibrated", "rough"]
    within: float = 1.0
    """Factor by which the time may be shorter or longer."""


class History:
    """Mean time and size of earlier runs, by kind of work."""

    def __init__(self, runs: Iterable[tuple[dict[str, Any], Path]]) -> None:
        self._seconds: dict[tuple[object, ...], list[float]] = defaultdict(list)
        self._bytes: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for record, folder in runs:
            if record["outcome"] != "ok" or record.get("stopped"):
                continue  # a stage that its limit ended early took less than its work
            ledger = record.get("ledger") or {}
            device = "cuda" if ledger.get("gpu_seconds") else "cpu"
            kind = (device, *_kind_of_record(record, folder))
            self._seconds[kind].append(float(ledger.get("wall_seconds") or 0.0))
            self._bytes[kind].append(sum(a["bytes"] for a in (record.get("artifacts") or {}).values()))
        self._slower: dict[str, float] = {}
        """How many times as long as roughly estimated earlier runs took, by device."""
        self._estimates: dict[tuple[object, ...], tuple[PlannedStage, Estimate]] = {}

    def calibrate(self, stages: Iterable[PlannedStage], cpus: int) -> None:
        """Learn from those of the stages that have earlier runs how much faster or slower than roughly estimated this machine is:
        the median over kinds of stages, since image networks reach many times the FLOPs of small sparse ones."""
        found: dict[str, dict[tuple[object, ...], float]] = defaultdict(dict)
        for planned in stages:
            device, kind = _device_of(planned), _kind_of_stage(planned)
            if kind in found[device] or (device, *kind) not in self._seconds:
                continue
            if planned.spec.limits.currency in (Currency.gpu_seconds, Currency.flops):
                continue  # ended by its budget, so its time says nothing about the machine
            seconds = self._seconds[device, *kind]
            rough = _rough_seconds(planned, _rates_of(planned.spec.device), cpus)
            if rough and sum(seconds):
                found[device][kind] = sum(seconds) / len(seconds) / rough
        self._estimates.clear()
        self._slower = {device: statistics.median(by_kind.values()) for device, by_kind in found.items() if by_kind}

    def estimate(self, planned: PlannedStage, cpus: int, rates: Rates | None = None) -> Estimate:
        """The mean of earlier runs of the same stage on the same dataset and such a device, under the same budget, profile,
        threads and backend, else a count of the work, calibrated if `calibrate` found other earlier runs. With `rates` of another
        machine, earlier runs on this one are ignored."""
        which = (planned.shared_values(), cpus, id(rates))
        if (
            which not in self._estimates
        ):  # it does not depend on seed, parents and cell; the stage is kept with its values
            self._estimates[which] = planned, self._estimate(planned, cpus, rates)
        return self._estimates[which][1]

    def _estimate(self, planned: PlannedStage, cpus: int, rates: Rates | None) -> Estimate:
        spec, on = planned.spec, _device_of(planned)
        kind = (on, *_kind_of_stage(planned))
        if rates is None and kind in self._seconds:
            seconds, sizes = self._seconds[kind], self._bytes[kind]
            mean = sum(seconds) / len(seconds)
            spread = max([NOISE, *(max(s, mean) / min(s, mean) for s in seconds if s > 0)])
            return Estimate(mean, sum(sizes) // len(sizes), "earlier runs", spread)
        used = rates or _rates_of(spec.device)
        slower = None if rates is not None else self._slower.get(on)
        source: Literal["calibrated", "rough"] = "rough" if slower is None else "calibrated"
        needed = _rough_seconds(planned, used, cpus) * (slower or 1.0)
        if spec.device == "cuda" and spec.limits.currency == Currency.gpu_seconds and planned.recipe is not None:
            exactly = spec.limits.uniformity == "exactly"
            needed = spec.limits.amount if exactly else min(needed, spec.limits.amount)
        return Estimate(needed, artifact_bytes(planned), source, used.within)


def _device_of(planned: PlannedStage) -> str:
    """Where a stage computes: linear probes and conversions use the CPU only."""
    return planned.spec.device if planned.recipe is not None or planned.spec.kind == "features" else "cpu"


def _rough_seconds(planned: PlannedStage, rates: Rates, cpus: int) -> float:
    cores = min(planned.spec.threads, cpus) if planned.spec.device == "cpu" else 1
    return rough_seconds(planned, rates) / cores


@cache
def _rates_of(device: str) -> Rates:
    return find(Rates, RATES_OF_DEVICE[device])


def _kind_of_record(record: dict[str, Any], folder: Path) -> tuple[object, ...]:
    try:
        spec, cell = read_json(folder / SPEC, below=folder), record.get("cell")
        if cell:
            what: tuple[object, ...] = ("finetune", cell["task"], cell.get("protocol", FINETUNE))
        else:
            of_task = spec["kind"] == "features"
            what = (spec["kind"], spec["task"]) if of_task else (spec["kind"], spec["method"], spec["stage"])
        dataset = spec["data"]["dataset"] if spec["data"] else None
        setting = (spec["limits"]["budget"], spec["profile"], dataset, spec["threads"], spec["sparse_backend"])
        return (*what, *setting)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _kind_of_stage(planned: PlannedStage) -> tuple[object, ...]:
    spec = planned.spec
    if spec.kind == "pretrain":
        what: tuple[object, ...] = (spec.method, spec.stage)
    else:
        what = (spec.task,) if planned.cell is None else (spec.task, spec.protocol)
    dataset = spec.data.dataset if spec.data is not None else None
    return (spec.kind, *what, spec.limits.budget, spec.profile, dataset, spec.threads, spec.sparse_backend)


def artifact_bytes(planned: PlannedStage) -> int:
    """Size of a stage's artifacts: a network, features, or predictions of every scored checkpoint."""
    spec, recipe = planned.spec, planned.recipe
    if spec.kind == "features":
        return _feature_bytes(spec)
    if spec.kind == "finetune" and spec.split is not None:
        scene = BYTES_A_BOX_PREDICTED * float(getattr(recipe, "proposals", 0))
        if spec.task_kind in BYTES_A_VOXEL_PREDICTED and (metres := getattr(recipe, "voxel_metres", None)):
            scene = BYTES_A_VOXEL_PREDICTED[spec.task_kind] * voxels_of_scene(metres, None)
        return round(CHECKPOINTS_PREDICTED * len(spec.split.test) * scene)
    if recipe is not None and recipe.work_per_step().pixels and not planned.leaves_backbone:
        return IMAGE_NETWORK_BYTES
    return BYTES_A_WEIGHT * sum(math.prod(shape) for shape in backbone_shapes(spec.network).values())


def rough_seconds(planned: PlannedStage, rates: Rates) -> float:
    """Seconds of a stage on one core or GPU, from its recipe, budget and the machine's rates; 0 for one that trains
    nothing."""
    if planned.spec.kind == "features":
        flops = rough_flops(planned)
        voxels = flops / _flops_a_voxel(planned) * FORWARD_SHARE
        return flops / rates.flops_a_second + voxels * rates.seconds_a_voxel
    if planned.recipe is None or planned.spec.takes_no_step:
        return 0.0
    flops, per_step, work = rough_flops(planned), _flops_a_step(planned), planned.recipe.work_per_step()
    steps = flops / per_step if per_step else steps_of(planned)
    points = rough_points(planned) * rates.seconds_a_point
    voxel = rates.seconds_a_voxel + _flops_a_voxel(planned) / rates.flops_a_second
    return steps * (work.voxels * voxel + work.pixels * rates.seconds_a_pixel) + points


class StageWork(Protocol):
    """The inputs of a count of the work, from a planned stage or a recorded one."""

    @property
    def spec(self) -> StageSpec:
        """The stage."""

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe; None where it trains nothing."""


def _feature_bytes(spec: StageSpec) -> int:
    """The rows of training scenes and all voxels of test scenes, float32."""
    assert spec.split is not None and spec.recipe is not None
    recipe = FeatureRecipe.model_validate(spec.recipe)
    voxels = voxels_of_scene(recipe.voxel_metres, None)
    rows = len(spec.split.train) * min(voxels, recipe.rows_per_scene or voxels)
    test = min(len(spec.split.test) * voxels * feature_channels(spec.network) * BYTES_A_WEIGHT, MOST_TEST_FEATURE_BYTES)
    return int(rows * feature_channels(spec.network) * BYTES_A_WEIGHT + test)


def rough_flops(planned: StageWork) -> float:
    """Floating-point operations of a stage, from its recipe and budget; 0 for one that trains nothing."""
    if planned.spec.kind == "features":
        return _feature_flops(planned.spec)
    if planned.recipe is None or planned.spec.takes_no_step:
        return 0.0
    limits, needed = planned.spec.limits, steps_of(planned) * _flops_a_step(planned)
    if limits.currency == Currency.flops:
        return limits.amount if limits.uniformity == "exactly" else min(limits.amount, needed)
    return needed


def _flops_a_voxel(planned: StageWork) -> float:
    return FLOPS_A_VOXEL * planned.spec.network.width**2


def _flops_a_step(planned: StageWork) -> float:
    work = planned.recipe.work_per_step() if planned.recipe else Work()
    return work.voxels * _flops_a_voxel(planned) + work.pixels * FLOPS_A_PIXEL


def _feature_flops(spec: StageSpec) -> float:
    """Two forward passes over the training scenes, for the norms and for the features, and one over the test scenes."""
    assert spec.split is not None and spec.recipe is not None
    scenes = 2 * len(spec.split.train) + len(spec.split.test)
    voxels = voxels_of_scene(FeatureRecipe.model_validate(spec.recipe).voxel_metres, None)
    return scenes * voxels * FLOPS_A_VOXEL / FORWARD_SHARE * spec.network.width**2


def rough_points(planned: StageWork) -> float:
    """Points that pass through networks on points over the whole stage."""
    return steps_of(planned) * planned.recipe.work_per_step().points if planned.recipe else 0.0


def steps_of(planned: StageWork) -> int:
    """Optimiser steps that a stage will take: the recipe's, or as many as its budget allows; 0 for a stage without training.
    If FLOPs or GPU seconds limit it, the recipe's."""
    recipe = planned.recipe
    if recipe is None:
        return 0
    wanted = recipe.planned_steps or AS_MANY_AS_ALLOWED
    return run_length(planned.spec.limits, wanted, recipe.samples_per_step).expected_steps
