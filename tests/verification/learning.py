"""`make verify-learning`: does each method learn its training objective, and does that help a linear probe?

On the procedural ScanNet world at size `tiny`, for each method and seed: the share of held-out positives that rank first,
before and after training, and the mIoU of a linear classifier on the frozen features, compared with features of random weights.
Each pair must at least triple the share and gain on the probe; a method's mean gain over its seeds must be at least 2 mIoU.
The probe reads the layers that fine-tuning loads: the last one, or all of those of `transfer: encoder`, brought to each voxel.
DepthContrast's share is measured with fixed encoders, in the format whose network is kept (voxels): during training, keys of the
queue can be distinguished from fresh ones by their age alone. Results of each pair are kept in the cache, so that an interrupted run
resumes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pretrain_bench.benchmarks.datasets.splits import scenes_for_testing, split_scenes
from pretrain_bench.benchmarks.datasets.views import load_cloud, load_labels
from pretrain_bench.benchmarks.input.transforms import evaluation_sample, evaluation_voxels
from pretrain_bench.benchmarks.input.voxelise import IGNORE, voxel_labels
from pretrain_bench.benchmarks.metrics.scorer import SemanticScorer
from pretrain_bench.benchmarks.specs.backbone_shapes import Transfer
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.probes import LinearProbe
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.code_digest import digest
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage, pretrain_stages
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.depthcontrast.moco import Queue
from pretrain_bench.methods.depthcontrast.recipe import DepthContrast
from pretrain_bench.methods.depthcontrast.scans import ScanViews
from pretrain_bench.methods.finetune.frozen import recalibrate
from pretrain_bench.methods.finetune.logistic import fit_logistic
from pretrain_bench.methods.networks.res16unet import Res16UNet34C, seeded_backbone
from pretrain_bench.methods.sparse.tensor import SparseTensor, batched_coordinates
from pretrain_bench.methods.stage import module_of, set_up_torch
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_into, load_weights
from pretrain_bench.methods.training.contrast import unit_rows
from pretrain_bench.methods.training.loop import Training, train_and_save
from tests.verification.report import write_report
from tests.verification.settings import (
    LEARNING_BUDGET,
    LEARNING_DATASET,
    LEARNING_PROBED,
    settings_hashes,
    settings_sha256,
)

METHODS = {
    "ours": ("pretrain_bench.methods.ours.images", "pretrain_bench.methods.ours.points"),
    "pointcontrast": ("pretrain_bench.methods.pointcontrast.pairs",),
    "csc": ("pretrain_bench.methods.csc.pairs",),
    "depthcontrast": ("pretrain_bench.methods.depthcontrast.scans",),
    "msc": ("pretrain_bench.methods.msc.scans",),
}
"""Maps each method to the modules of its stages."""
SEEDS = (0, 1, 2)
BUDGET, DATASET = LEARNING_BUDGET, LEARNING_DATASET
HELD_OUT_BATCHES = 48
NEGATIVES = 96
"""Number of other held-out scans among which a scan's key is ranked, for DepthContrast: the expected value over random draws."""
PROBE_RATIO = "10%"
LEAST_GAIN = 3.0
LEAST_PROBE_GAIN = 0.02
"""Least mean gain in mIoU over the seeds of a method."""


class Accuracy(NamedTuple):
    """The share of held-out positives that rank first, before and after training, and by chance."""

    before: float
    after: float
    chance: float


def stages(method: str, seed: int, source: PreparedDataset) -> list[PlannedStage]:
    """The stages of `bench run --method METHOD --budget tiny`, with one thread."""
    budget = find(Budget, BUDGET)
    profile = find(Profile, budget.default_profile or BUDGET)
    specs = CellSpecs(find(Method, method), find(Task, "s3dis-sem"), budget, profile)
    return pretrain_stages(specs, source, seed, Machine(1, "torch", "cpu"))


def world() -> PreparedDataset:
    """The procedural ScanNet world at the size of the profile."""
    return DataSources(frame_stride=50, world=find(Profile, BUDGET).world).prepare(DATASET, strict=True, say=print)


def run_stage(planned: PlannedStage, folder: Path, parents: dict[str, Path]) -> tuple[dict[str, Accuracy], Path]:
    """Train or resume one stage. Returns the accuracies on held-out rooms, the one with a bound first, and the folder of
    its artifacts."""
    assert planned.data is not None and planned.spec.data is not None
    rooms = tuple(sorted(scenes_for_testing(planned.data.scenes, planned.data.dataset)))
    view = planned.spec.data.model_copy(update={"scenes": rooms})
    held_out = planned._replace(spec=planned.spec.model_copy(update={"data": view}))
    lay_out(folder / "held-out", held_out, parents, None)
    lay_out(folder / "train", planned, parents, None)
    set_up_torch(planned.spec)
    module: Any = importlib.import_module(module_of(planned.spec))
    context = StageContext.open(folder / "train")
    training: Training = module.prepare(context)
    aside: Training = module.prepare(StageContext.open(folder / "held-out"))
    look = scans_ranked_first if isinstance(planned.recipe, DepthContrast) else ranked_first
    before = look(aside, {n: m.state_dict() for n, m in aside.modules.items()})
    train_and_save(context, training)
    after = look(aside, {n: m.state_dict() for n, m in training.modules.items()})
    return {n: Accuracy(before[n][0], after[n][0], before[n][1]) for n in before}, context.artifacts


def ranked_first(training: Training, weights: dict[str, dict[str, Tensor]]) -> dict[str, tuple[float, float]]:
    """The mean share of positives that rank first within their batch, and that by chance."""
    for name, module in training.modules.items():
        module.load_state_dict(weights[name])
    found = [training.run_step(number, training.make_batch(number)).health for number in range(HELD_OUT_BATCHES)]
    return {"": (float(np.mean([h["top1"] for h in found])), float(np.mean([1 / h["candidates"] for h in found])))}


@torch.no_grad()
def scans_ranked_first(training: Training, weights: dict[str, dict[str, Tensor]]) -> dict[str, tuple[float, float]]:
    """For voxels and points: the probability that a held-out scan's key is nearer to its query than those of NEGATIVES others, and
    that by chance. Encoders are fixed; each scan is queried twice, with different augmentations."""
    for name, module in training.modules.items():
        if not isinstance(module, Queue):
            module.load_state_dict(weights[name])
    batches = [training.make_batch(number) for number in range(HELD_OUT_BATCHES // 2)]
    found = {}
    for kind in ("voxel", "point"):
        shares = []
        for half in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
            queries = torch.cat([embed_scans(training.modules[f"{kind}_query"], b, 0, kind) for b in half])
            keys = torch.cat([embed_scans(training.modules[f"{kind}_key"], b, 1, kind) for b in half])
            similarity = queries @ keys.t()
            shares += [first_of(int(n), len(keys)) for n in (similarity > similarity.diag()[:, None]).sum(1)]
        found["" if kind == "voxel" else "points"] = float(np.mean(shares)), 1 / (NEGATIVES + 1)
    return found


def first_of(nearer: int, scans: int) -> float:
    """The probability that none of NEGATIVES others, drawn without replacement, is among the `nearer` ones."""
    return math.comb(scans - 1 - nearer, NEGATIVES) / math.comb(scans - 1, NEGATIVES)


def embed_scans(encoder: nn.Module, views: list[ScanViews], which: int, kind: str) -> Tensor:
    """Unit rows of the query (0) or key (1) copies of scans in one format."""
    if kind == "point":
        return unit_rows(encoder(torch.stack([v.points[which] for v in views if v.points is not None])))
    voxels = [v.voxels[which] for v in views]
    coordinates = batched_coordinates([v.coordinates for v in voxels])
    return unit_rows(encoder(SparseTensor(torch.cat([v.colours for v in voxels]), coordinates)))


def probe(
    backbone: Res16UNet34C, source: PreparedDataset, voxel_metres: float, colour: bool, transfer: Transfer = "all"
) -> float:
    """The test mIoU of a linear classifier on frozen features of the layers that fine-tuning loads, trained on a tenth of the
    training rooms.

    Batch norms are first recalibrated on the training rooms, for trained and random weights alike.
    """
    split = split_scenes(source.scenes, source.dataset, LabelRatio.parse(PROBE_RATIO))
    classes = len(source.dataset.classes)
    recalibrate(backbone, [backbone], [sparse_room(source, s, voxel_metres, colour) for s in split.train])
    features = torch.cat([embed(backbone, source, s, voxel_metres, colour, transfer) for s in split.train])
    labels = torch.from_numpy(np.concatenate([room_labels(source, s, voxel_metres) for s in split.train])).long()
    known = labels != IGNORE
    head = fit_logistic(features[known], labels[known], classes, LinearProbe()).head
    predictions = {}
    for scene in split.test:
        logits = head(embed(backbone, source, scene, voxel_metres, colour, transfer))
        predictions[scene] = {"classes": logits.argmax(1).to(torch.uint8).numpy()}
    score = SemanticScorer(source.folder, split.test, voxel_metres, classes).score(predictions)["miou_voxel"]
    assert score is not None
    return score


def sparse_room(source: PreparedDataset, scene: str, voxel_metres: float, colour: bool) -> SparseTensor:
    """A whole room as network input: colours centred on zero, or ones for PointContrast."""
    coordinates, rgb = evaluation_sample(load_cloud(source.folder, scene), voxel_metres)
    inputs = rgb / np.float32(255) - np.float32(0.5) if colour else np.ones_like(rgb)
    return SparseTensor(torch.from_numpy(inputs), batched_coordinates([torch.from_numpy(coordinates)]))


def room_labels(source: PreparedDataset, scene: str, voxel_metres: float) -> np.ndarray:
    """(V,) uint8 labels in the order of `sparse_room`."""
    voxels = evaluation_voxels(np.asarray(load_cloud(source.folder, scene).xyz), voxel_metres)
    return voxel_labels(np.asarray(load_labels(source.folder, scene).semantic), voxels)


@torch.no_grad()
def embed(
    backbone: Res16UNet34C, source: PreparedDataset, scene: str, voxel_metres: float, colour: bool, transfer: Transfer
) -> Tensor:
    """(V, C) features: the input of the last layer, or the outputs of all levels that `transfer: encoder` loads."""
    room = sparse_room(source, scene, voxel_metres, colour)
    return backbone.features(room).F if transfer == "all" else encoder_features(backbone, room)


def encoder_features(backbone: Res16UNet34C, room: SparseTensor) -> Tensor:
    """(V, C) outputs of the first layer, the four encoder levels and the first decoder level (conv0p1s1 to block5), side by
    side: each voxel has the features of the coarse voxels that contain it."""
    outputs: list[SparseTensor] = []
    hooks = [
        getattr(backbone, name).register_forward_hook(lambda _, __, out: outputs.append(out))
        for name in ("bn0", "block1", "block2", "block3", "block4", "block5")
    ]
    try:
        backbone.features(room)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([out.F.relu()[containing(room.C, out)] for out in outputs], 1)


def containing(fine: Tensor, coarse: SparseTensor) -> Tensor:
    """(V,) rows of `coarse` whose voxels contain the (V, 4) coordinates `fine`."""
    stride = coarse.tensor_stride[0]
    floored = torch.cat([fine[:, :1], fine[:, 1:].div(stride, rounding_mode="floor") * stride], 1)
    _, numbers = torch.unique(torch.cat([coarse.C, floored]), dim=0, return_inverse=True)
    rows = torch.empty(len(coarse.C), dtype=torch.long)
    rows[numbers[: len(coarse.C)]] = torch.arange(len(coarse.C))
    return rows[numbers[len(coarse.C) :]]


def verify_one(method: str, seed: int, folder: Path) -> dict[str, Any]:
    """All results of one method and seed."""
    source, began = world(), time.process_time()
    parents: dict[str, Path] = {}
    accuracies, without_bound = {}, {}
    planned = stages(method, seed, source)
    for stage in planned:
        found, artifacts = run_stage(stage, folder / stage.spec.stage, parents)
        accuracies[stage.spec.stage] = found[""]._asdict()
        without_bound |= {name: accuracy._asdict() for name, accuracy in found.items() if name}
        parents[stage.spec.stage] = artifacts
    recipe, network = planned[-1].recipe, planned[-1].spec.network
    voxel, colour = recipe.voxel_metres, method != "pointcontrast"  # type: ignore[union-attr]
    transfer: Transfer = getattr(recipe, "transfer", "all")
    return {
        "ranked_first": accuracies,
        "without_bound": without_bound,
        "probe": probe(load_backbone(artifacts, network, seed), source, voxel, colour, transfer),
        "probe_random": probe(seeded_backbone(1, network, 0.1, "torch", 1000 + seed), source, voxel, colour, transfer),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def load_backbone(artifacts: Path, network: NetworkSettings, seed: int) -> Res16UNet34C:
    """Load a trained backbone without its last layer."""
    backbone = seeded_backbone(1, network, 0.1, "torch", seed)
    load_into(backbone, load_weights(artifacts / BACKBONE_FILE), ("final.",), "backbone")
    return backbone


def known(method: str) -> str:
    """Hash of everything that decides a result, to look up finished ones."""
    code = digest(
        (
            *METHODS[method],
            "pretrain_bench.benchmarks.metrics.scorer",
            "pretrain_bench.benchmarks.datasets.splits",
            "pretrain_bench.benchmarks.procedural.write",
        )
    )
    parts = (code, settings_sha256(method, BUDGET, DATASET), Path(__file__).read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def all_results(folder: Path, methods: list[str], processes: int) -> dict[str, Any]:
    """Results of all pairs; missing ones are computed in separate processes, `processes` at a time."""
    pairs = [(m, s) for s in SEEDS for m in methods]

    def one(pair: tuple[str, int]) -> dict[str, Any]:
        method, seed = pair
        place = folder / f"{method}-{seed}-{known(method)[:16]}"
        done = place / "result.json"
        if not done.is_file():
            place.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", __spec__.name, "--one", method, str(seed), "--folder", str(place)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
            with (place / "log.txt").open("ab") as log:
                subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
        found = json.loads(done.read_text())
        print(method, seed, json.dumps(found), flush=True)
        return found

    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        results = pool.map(one, pairs)
        return {f"{m}-{s}": r for (m, s), r in zip(pairs, results, strict=True)}


def misses(results: dict[str, Any], probed: Sequence[str] = LEARNING_PROBED) -> list[str]:
    """Missed bounds, as messages; `probed` methods must have a probe for each seed."""
    found = []
    for pair, result in results.items():
        for stage, a in result["ranked_first"].items():
            if not a["after"] >= LEAST_GAIN * max(a["before"], a["chance"]):
                found.append(f"{pair}/{stage}: ranked first {a['before']:.3f} -> {a['after']:.3f}")
        if pair.rpartition("-")[0] not in probed:
            continue
        if "probe" not in result:
            found.append(f"{pair}: no probe")
        elif not result["probe"] > result["probe_random"]:
            found.append(f"{pair}: probe {result['probe']:.3f}, random weights {result['probe_random']:.3f}")
    for method in probed:
        own = [r for p, r in results.items() if p.rpartition("-")[0] == method and "probe" in r]
        gains = [r["probe"] - r["probe_random"] for r in own]
        if gains and not np.mean(gains) >= LEAST_PROBE_GAIN:
            found.append(
                f"{method}: mean gain of the probe {100 * np.mean(gains):.2f} mIoU, less than {100 * LEAST_PROBE_GAIN:.0f}"
            )
    return found


def main() -> None:
    """Run the missing pairs, then write docs/verification/learning.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help="one pair, in this process")
    parser.add_argument("--folder", type=Path, help="where results are kept  [default: in the cache folder]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="some methods only, and no report")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.one:
        method, seed = options.one
        result = verify_one(method, int(seed), options.folder)
        (options.folder / "result.json").write_text(json.dumps(result, indent=1))
        return
    world()
    folder = options.folder or cache_folder() / "verify-learning"
    results = all_results(folder, options.methods or list(METHODS), options.processes)
    if options.methods:
        return
    short = misses(results)
    write_report(
        "learning",
        f"held-out positives that rank first, and a linear probe at {PROBE_RATIO} of the rooms (its bound is on a method's "
        f"mean), {DATASET}, budget {BUDGET}",
        "failed" if short else "ok",
        settings=settings_hashes("learning"),
        results=results,
        misses=short,
    )
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
