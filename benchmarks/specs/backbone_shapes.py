"""Names and shapes of the backbone's tensors, without torch: the output of a pre-training stage (spec A.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.network import NetworkSettings


INIT_DIM = 32
PLANES = (32, 64, 128, 256, 256, 128, 96, 96)
LAYERS = (2, 3, 4, 6, 2, 2, 2, 2)
HEAD_PREFIX = "final."
ENCODER = (
    ("conv1p1s2", "bn1", "block1"),
    ("conv2p2s2", "bn2", "block2"),
    ("conv3p4s2", "bn3", "block3"),
    ("conv4p8s2", "bn4", "block4"),
)
DECODER = (
    ("convtr4p16s2", "bntr4", "block5"),
    ("convtr5p8s2", "bntr5", "block6"),
    ("convtr6p4s2", "bntr6", "block7"),
    ("convtr7p2s2", "bntr7", "block8"),
)

Shapes = dict[str, tuple[int, ...]]
Transfer = Literal["all", "encoder"]
TRANSFER_MEANS = (
    "tensors that fine-tuning loads: the whole backbone, or its encoder and first decoder level (conv0p1s1 to block5)"
)

Input = Literal["colour", "geometry"]
"""The features of a voxel that a network sees: its colour, or ones."""
ENCODER_MODULES = ("conv0p1s1", "bn0", *(name for level in ENCODER for name in level))
"""conv0p1s1 to block4."""
DECODER_PREFIXES = tuple(f"{name}." for level in DECODER for name in level)


def not_transferred(transfer: Transfer) -> tuple[str, ...]:
    """Prefixes of the tensors that fine-tuning initialises anew; the last layer is always among them.

    With `encoder`, a Res16UNet34C takes from the Res16UNet34 of DepthContrast's release conv0p1s1 to block4, and convtr4p16s2,
    bntr4 and block5, which have 256 channels in both (spec A.5).
    """
    if transfer == "all":
        return (HEAD_PREFIX,)
    return (HEAD_PREFIX, *(f"{name}." for level in DECODER[1:] for name in level))


def planes_of(settings: NetworkSettings) -> tuple[int, tuple[int, ...]]:
    """(width of the first layer, widths of the eight blocks) after scaling."""
    return max(1, round(INIT_DIM * settings.width)), tuple(max(1, round(p * settings.width)) for p in PLANES)


def feature_channels(settings: NetworkSettings) -> int:
    """Number of input channels of the last layer: 96 at full width."""
    return planes_of(settings)[1][-1]


def backbone_shapes(settings: NetworkSettings) -> Shapes:
    """The 372 tensors that every method writes, without `final.*`, in the order of the state dict."""
    first, planes = planes_of(settings)
    shapes: Shapes = {"conv0p1s1.kernel": (settings.first_kernel**3, settings.input_channels, first)}
    _norm(shapes, "bn0", first)
    skips, width = [first], first
    for level, (conv, norm, block) in enumerate(ENCODER):
        shapes[f"{conv}.kernel"] = (8, width, width)
        _norm(shapes, norm, width)
        _layer(shapes, block, width, planes[level], LAYERS[level])
        width = planes[level]
        skips.append(width)
    for level, (conv, norm, block) in enumerate(DECODER):
        out = planes[4 + level]
        shapes[f"{conv}.kernel"] = (8, width, out)
        _norm(shapes, norm, out)
        _layer(shapes, block, out + skips[3 - level], out, LAYERS[4 + level])
        width = out
    return shapes


def _norm(shapes: Shapes, name: str, channels: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.bn.{part}"] = (channels,)
    shapes[f"{name}.bn.num_batches_tracked"] = ()


def _layer(shapes: Shapes, name: str, inplanes: int, planes: int, blocks: int) -> None:
    for block in range(blocks):
        shapes[f"{name}.{block}.conv1.kernel"] = (27, inplanes if block == 0 else planes, planes)
        _norm(shapes, f"{name}.{block}.norm1", planes)
        shapes[f"{name}.{block}.conv2.kernel"] = (27, planes, planes)
        _norm(shapes, f"{name}.{block}.norm2", planes)
        if block == 0 and inplanes != planes:
            shapes[f"{name}.0.downsample.0.kernel"] = (inplanes, planes)
            _norm(shapes, f"{name}.0.downsample.1", planes)
