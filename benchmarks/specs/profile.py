"""Profiles, each a full answer to the decision register."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, PositiveInt

from pretrain_bench.benchmarks.specs.base import Name, Selection, Spec
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.probes import Probes
from pretrain_bench.benchmarks.specs.recipes import TaskRecipe


class Profile(Spec):
    """One full answer to the decision register, plus matching sizes.

    Pre-training recipes are elsewhere: each method has its sections in `methods/<name>/profiles.yaml`.
    """

    name: Name = Field(description="name in commands and records")
    version: PositiveInt = Field(description="version, increased with every change")
    description: str = Field("", description="in a sentence or two")
    frame_stride: PositiveInt = Field(50, description="J-12: every n-th frame of a recorded sequence")
    world: Name = Field("tiny", description="size of procedural datasets, if no data are given")
    pretrain_scenes: Literal["train", "all"] = Field("train", description="J-25")
    left_out_scenes: dict[Name, tuple[str, ...]] = Field(
        {},
        description="prefixes of unused scenes by dataset (J-22: SemanticKITTI without sequence 00)",
    )
    selection: Selection = Field(
        "held_out", description="training scenes that select a checkpoint: a tenth is held out, or none, as papers do"
    )
    network: NetworkSettings = NetworkSettings()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="precision of network passes, by autocast; losses and weights stay float32"
    )
    methods: dict[Name, dict[Name, dict[str, JsonValue]]] = Field(
        {},
        description="fields of recipes by method and stage; they override the method's own profiles.yaml",
    )
    probes: Probes = Field(Probes(), description="settings of the protocols that freeze the backbone or its encoder")
    tasks: dict[Name, TaskRecipe]
    bases: tuple[Name, ...] = Field((), description="filled in by the loader: the profiles it extends, the base first")

    @property
    def lineage(self) -> tuple[str, ...]:
        """The profiles it extends, then itself: later sections override earlier ones."""
        return (*self.bases, self.name)
