"""Checkpoints from elsewhere: where a file comes from, which decides the order of its kernels, and what a stage knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from pretrain_bench.benchmarks.specs.base import Spec

IMPORTED = "imported"
"""The method of this project whose one stage hands on a checkpoint of the user's."""

KernelOrder = Literal["minkowski-0.5", "minkowski-0.4", "spconv", "spconv-zyx"]
"""How the offsets of a kernel are numbered (spec A.6). This project has the order of MinkowskiEngine 0.5. `spconv` is for
coordinates in the order x, y, z, as Pointcept's; `spconv-zyx` for the reverse."""

OWN_ORDER: KernelOrder = "minkowski-0.5"
KERNEL_ORDER, PARTIAL = "kernel_order", "partial"
"""What files of this project state of themselves: in the metadata of safetensors, beside `state_dict` in PyTorch's. `partial`:
the user accepted, when the file was converted, that tensors are missing."""
ExportFormat = Literal["minkowski-0.5", "minkowski-0.4", "spconv", "pointcept"]

CheckpointOrigin = Literal[
    "pointcontrast", "csc", "csc-votenet", "depthcontrast", "minkowski-0.4", "minkowski-0.5", "spconv", "spconv-zyx", "bench"
]  # fmt: skip


class OriginFacts(NamedTuple):
    """The kernel order of an origin's files, and the prefix of the network to take where several in a file fit."""

    title: str
    order: KernelOrder
    prefix: str | None = None


ORIGINS: dict[CheckpointOrigin, OriginFacts] = {
    "pointcontrast": OriginFacts("PointContrast releases", "minkowski-0.4"),
    "csc": OriginFacts("ContrastiveSceneContexts releases", "minkowski-0.4"),
    "csc-votenet": OriginFacts("ContrastiveSceneContexts detection checkpoints", "minkowski-0.4"),
    "depthcontrast": OriginFacts(
        "DepthContrast releases (voxel trunk)", "minkowski-0.4", prefix="model.module.trunk.2."
    ),
    "minkowski-0.4": OriginFacts("networks trained with MinkowskiEngine before 0.5", "minkowski-0.4"),
    "minkowski-0.5": OriginFacts("networks trained with MinkowskiEngine 0.5 or later", "minkowski-0.5"),
    "spconv": OriginFacts("spconv 2, coordinates in the order x, y, z", "spconv"),
    "spconv-zyx": OriginFacts("spconv 2, coordinates in the order z, y, x", "spconv-zyx"),
    "bench": OriginFacts("backbones of this project", "minkowski-0.5"),
}
assert tuple(ORIGINS) == get_args(CheckpointOrigin)


class Checkpoint(Spec):
    """What decides the result of importing a file: its content, and its origin where the user names one."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    origin: CheckpointOrigin | None = Field(None, description="None: the file itself shows the order of its kernels")


class CheckpointFile(Checkpoint):
    """A checkpoint with its file on this machine."""

    path: Path

    @property
    def identity(self) -> Checkpoint:
        """The part that goes into a key: nothing of this machine."""
        return Checkpoint(sha256=self.sha256, origin=self.origin)


class ImportedFrom(Spec):
    """What a record says of an imported checkpoint. Its budget is never known; its pre-training scenes only where stated."""

    file: str = Field(description="name of the file, as the user gave it, without its folder")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    origin: CheckpointOrigin | None = None
    budget: Literal["unknown"] = "unknown"
    pretrained_on: tuple[str, ...] | None = Field(
        None, description="scenes, as the user states them; None: unknown, so contamination is unknown"
    )

    @property
    def facts(self) -> dict[str, str]:
        """The same in words, for a person."""
        scenes = self.pretrained_on
        return {
            "imported file": self.file,
            "sha256": self.sha256,
            "origin": self.origin or "as the file itself states",
            "pre-training budget": self.budget,
            "pre-training scenes": "unknown" if scenes is None else f"{len(scenes)}, stated by the user",
        } | ({"contaminated": "unknown (--pretrained-on FILE states the scenes)"} if scenes is None else {})
