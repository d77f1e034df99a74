"""Evaluation protocols of a pre-trained backbone, and the settings of protocols that freeze part of it.

`finetune` trains the whole network on the task. `linear` freezes the backbone and fits a linear classifier to its last features.
`decoder` freezes the encoder and trains decoder and head with the task's recipe. Sources: spec 2.5 and 2.6.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Spec

Protocol = Literal["finetune", "linear", "decoder"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
FINETUNE: Protocol = "finetune"
BatchNorm = Annotated[
    Literal["recalibrated", "kept"],
    Field(
        description="running statistics of frozen batch norms: recomputed on the task's training scenes, without labels, or kept "
        "from pre-training"
    ),
]


class LinearProbe(Spec):
    """Multinomial logistic regression on the features that enter the last layer."""

    protocol: Literal["linear"] = Field("linear", description="protocol of this recipe")
    batch_norm: BatchNorm = "recalibrated"
    rows_per_scene: NonNegativeInt = Field(
        2000, description="maximum number of labelled voxels per training scene, drawn by its name; 0 for all"
    )
    penalty: NonNegativeFloat = Field(1e-4, description="factor of the squared weights; the bias is not penalised")
    iterations: PositiveInt = Field(100, description="maximum number of LBFGS iterations")

    @property
    def features(self) -> FeatureSettings:
        """The settings that determine the features, which probes at all label ratios share."""
        return FeatureSettings(batch_norm=self.batch_norm, rows_per_scene=self.rows_per_scene)

    @property
    def uses_decoder(self) -> bool:
        """Whether it evaluates the pre-trained decoder too, rather than the encoder alone."""
        return True

    @property
    def title(self) -> str:
        """The protocol's name in reports: `linear`, `linear, batch norm kept`."""
        return f"linear{_norm_mark(self.batch_norm)}"


class DecoderProbe(Spec):
    """The task's recipe with a frozen encoder."""

    protocol: Literal["decoder"] = Field("decoder", description="protocol of this recipe")
    batch_norm: BatchNorm = "recalibrated"
    start: Literal["reset", "kept"] = Field(
        "reset", description="the decoder's weights: drawn from the run's seed, or the pre-trained ones"
    )

    @property
    def uses_decoder(self) -> bool:
        """Whether it starts from the pre-trained decoder."""
        return self.start == "kept"

    @property
    def title(self) -> str:
        """The protocol's name in reports: `decoder`, or `decoder kept` with the pre-trained decoder."""
        return f"decoder{' kept' if self.start == 'kept' else ''}{_norm_mark(self.batch_norm)}"


Probe = Annotated[LinearProbe | DecoderProbe, Field(discriminator="protocol")]
"""Protocols that probe a frozen backbone."""


class Probes(Spec):
    """A profile's settings of each protocol that freezes something."""

    linear: LinearProbe = LinearProbe()
    decoder: DecoderProbe = DecoderProbe()

    def of(self, protocol: Protocol) -> LinearProbe | DecoderProbe | None:
        """The settings of one protocol; None for `finetune`, which freezes nothing."""
        return None if protocol == FINETUNE else getattr(self, protocol)


class FeatureSettings(Spec):
    """The settings that determine the features of a frozen backbone, besides its weights and the data."""

    batch_norm: BatchNorm = "recalibrated"
    rows_per_scene: NonNegativeInt = 2000


class FeatureRecipe(FeatureSettings):
    """The recipe of a stage that computes features."""

    voxel_metres: PositiveFloat


def _norm_mark(batch_norm: str) -> str:
    return ", batch norm kept" if batch_norm == "kept" else ""
