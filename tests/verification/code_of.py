"""The modules that each verification report covers: exactly those whose change could change its result.

Imports are not followed: modules that are merely imported (error classes, specs, the contract) are not listed.
"""

from __future__ import annotations

import hashlib

from pretrain_bench.harness.planning.code_digest import PACKAGE, file_of

ENGINE = (
    "benchmarks.specs.backbone_shapes",
    "methods.networks.res16unet",
    "methods.sparse.backend",
    "methods.sparse.conv",
    "methods.sparse.kernel_map",
    "methods.sparse.pointwise",
    "methods.sparse.tensor",
    "methods.sparse.workers",
)
TRITON = (
    "methods.sparse.implicit_gemm",
    "methods.sparse.partner_map",
    "methods.sparse.pyramid",
    "methods.sparse.tiles",
    "methods.sparse.triton_kernels",
)
TRAINING = ("methods.training.loader", "methods.training.loop", "methods.training.optim")
PRETRAINING = (
    *ENGINE,
    *TRAINING,
    "benchmarks.datasets.overlaps",
    "benchmarks.datasets.pairs",
    "benchmarks.input.transforms",
    "benchmarks.input.voxelise",
    "methods.csc.pairs",
    "methods.csc.partition",
    "methods.depthcontrast.augment",
    "methods.depthcontrast.moco",
    "methods.depthcontrast.scans",
    "methods.msc.passes",
    "methods.msc.scans",
    "methods.msc.schedule",
    "methods.msc.views",
    "methods.networks.pointnet2",
    "methods.networks.resunet2d",
    "methods.ours.augment",
    "methods.ours.images",
    "methods.ours.points",
    "methods.ours.projection",
    "methods.pointcontrast.hardest",
    "methods.pointcontrast.pairs",
    "methods.training.contrast",
    "methods.training.frame_pairs",
)
FINETUNING = (
    *ENGINE,
    *TRAINING,
    "benchmarks.input.boxes",
    "benchmarks.input.detection",
    "benchmarks.input.transforms",
    "benchmarks.input.voxelise",
    "methods.finetune.clustering",
    "methods.finetune.core",
    "methods.finetune.detection",
    "methods.finetune.instance",
    "methods.finetune.pointgroup",
    "methods.finetune.semantic",
    "methods.finetune.steps",
    "methods.finetune.votenet_loss",
    "methods.networks.instance_net",
    "methods.networks.pointnet2",
    "methods.networks.score_net",
    "methods.networks.votenet",
)
SCORING = (
    "benchmarks.metrics.detection_ap",
    "benchmarks.metrics.instance_ap",
    "benchmarks.metrics.scorer",
    "benchmarks.metrics.semantic",
)
WORLDS = (
    "benchmarks.datasets.splits",
    "benchmarks.procedural.furniture",
    "benchmarks.procedural.parts",
    "benchmarks.procedural.rooms",
    "benchmarks.procedural.sensors",
    "benchmarks.procedural.worlds",
    "benchmarks.procedural.write",
)
READERS = (
    "companions",
    "images",
    "prepare",
    "rgbd_folder",
    "s3dis",
    "scannet",
    "semantickitti",
    "sens",
    "sunrgbd",
    "value_checks",
    "writers",
)
EVERY_STAGE = (*PRETRAINING, *FINETUNING, "methods.supervised.semantic")

PUBLISHING = (
    "benchmarks.support.files",
    "benchmarks.support.foreign_files",
    "benchmarks.support.locks",
    "benchmarks.support.ownership",
    "harness.store.chain",
    "harness.store.hashes",
    "harness.store.store",
)
"""The modules that make a finished run visible."""

CLUSTERS = (
    "benchmarks.support.ownership",
    "harness.clusters.jobs",
    "harness.clusters.ticket",
    "harness.clusters.worker",
    "harness.running.scheduler",
    "harness.running.scratch",
    "harness.store.remains",
)
"""The modules that run stages on any cluster."""

CODE: dict[str, tuple[str, ...]] = {
    "cluster": (*CLUSTERS, "harness.clusters.slurm", "harness.clusters.slurm_options", "harness.clusters.submissions"),
    "ray": (*CLUSTERS, "harness.clusters.ray_cluster"),
    "crash-points": PUBLISHING,
    "power-cut": PUBLISHING,
    "strangers": (
        *PUBLISHING,
        "benchmarks.specs.loading",
        "benchmarks.specs.yaml_core",
        "harness.audit.pack",
        "harness.audit.runs",
        "harness.audit.static",
        "harness.contract.migrations",
        "harness.contract.records",
        "harness.store.bundle",
        "harness.store.short_events",
        "harness.store.retention",
        "harness.store.spec_reader",
        "reports.analysis.frame",
        "reports.page.run_attachments",
    ),
    "faults": (
        "benchmarks.support.locks",
        "harness.executors.local",
        "harness.running.scheduler",
        "harness.running.stage_runner",
        "harness.store.chain",
        "harness.store.hashes",
        "harness.store.store",
        "methods.training.checkpoint",
    ),
    "gpu": (*ENGINE, *TRITON),
    "gpu-headline": EVERY_STAGE,
    "gpu-minkowski": (*ENGINE, "methods.depthcontrast.scans"),
    "gpu-peers": (*ENGINE, *TRITON),
    "gpu-stages": EVERY_STAGE,
    "learning": (*PRETRAINING, *WORLDS, "benchmarks.metrics.semantic"),
    "minkowski": (*ENGINE, "methods.depthcontrast.scans"),
    "minkowski-image": (*ENGINE, "methods.depthcontrast.scans"),
    "statistics": (
        "reports.analysis.claims",
        "reports.analysis.power",
        "reports.analysis.sequential",
        "reports.analysis.statistics",
    ),
    "values": (
        *(f"benchmarks.datasets.{name}" for name in READERS),
        "benchmarks.specs.loading",
        "benchmarks.specs.yaml_core",
        "methods.training.checkpoint",
    ),
    "tasks": (*FINETUNING, *SCORING, *WORLDS, "benchmarks.procedural.street_parts", "benchmarks.procedural.streets"),
}
"""Maps each report to its modules, without the package name."""


def module_hashes(report: str) -> dict[str, str]:
    """The sha256 of each module that a report covers. Raises ValueError if a module does not exist."""
    hashes = {}
    for module in sorted(set(CODE[report])):
        path = file_of(f"{PACKAGE}.{module}")
        if path is None:
            raise ValueError(f"{__name__} lists {module}, which does not exist (any more)")
        hashes[module] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes
