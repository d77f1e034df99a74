"""Imported checkpoints: origin and kernel order of a file, and its description in stage and record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from pretrain_bench.benchmarks.specs.base import Spec

IMPORTED = "imported"
"""The built-in method whose one stage imports a user's checkpoint."""

KernelOrder = Literal["minkowski-0.5", "minkowski-0.4", "spconv", "spconv-zyx"]
"""Numbering of a kernel's offsets (spec A.6). This project uses the order of MinkowskiEngine 0.5. `spconv` is for coordinates
in the order x, y, z, as in Pointcept; `spconv-zyx` for the reverse."""

OWN_ORDER: KernelOrder = "minkowski-0.5"
KERNEL_ORDER, PARTIAL = "kernel_order", "partial"
"""Keys of the metadata that this project writes: in safetensors' metadata, or beside `state_dict` in a PyTorch file.
`partial`: the user accepted missing tensors when the file was converted."""
ExportFormat = Literal["minkowski-0.5", "minkowski-0.4", "spconv", "pointcept"]

CheckpointOrigin = Literal[
    "pointcontrast", "csc", "csc-votenet", "depthcontrast", "minkowski-0.4", "minkowski-0.5", "spconv", "spconv-zyx", "bench"
]  # fmt: skip


class OriginFacts(NamedTuple):
    """The kernel order of an origin's files, and the prefix of the network to use if several networks in a file fit."""

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
    """The inputs of an import: the file's content, and its origin if the user names one."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    origin: CheckpointOrigin | None = Field(None, description="None: the file itself shows its kernel order")


class CheckpointFile(Checkpoint):
    """A checkpoint with its file on this machine."""

    path: Path

    @property
    def identity(self) -> Checkpoint:
        """The part that enters a key, independent of this machine."""
        return Checkpoint(sha256=self.sha256, origin=self.origin)


class ImportedFrom(Spec):
    """The provenance of an imported checkpoint in a record. Its budget is unknown; its pre-training scenes are known
    only if stated."""

    file: str = Field(description="name of the file, as the user gave it, without its folder")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    origin: CheckpointOrigin | None = None
    budget: Literal["unknown"] = "unknown"
    pretrained_on: tuple[str, ...] | None = Field(
        None, description="scenes, as the user states them; None: unknown, so contamination is unknown"
    )

    @property
    def facts(self) -> dict[str, str]:
        """The same as label and text pairs, for display."""
        scenes = self.pretrained_on
        return {
            "imported file": self.file,
            "sha256": self.sha256,
            "origin": self.origin or "as the file itself states",
            "pre-training budget": self.budget,
            "pre-training scenes": "unknown" if scenes is None else f"{len(scenes)}, stated by the user",
        } | ({"contaminated": "unknown (--pretrained-on FILE states the scenes)"} if scenes is None else {})
