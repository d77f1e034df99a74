"""Exports a backbone of this project in the layout of another one: the reverse of importing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain_bench.benchmarks.specs.backbone_shapes import HEAD_PREFIX, Shapes
from pretrain_bench.benchmarks.specs.checkpoint import KERNEL_ORDER, OWN_ORDER, ExportFormat, KernelOrder
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import replacing
from pretrain_bench.methods.imported.layouts import (
    MINKOWSKI,
    POINTCEPT,
    SPCONV,
    SPUNET_PREFIX,
    Layout,
    order_from_cube,
    spunet_shapes,
    with_their_norms,
)
from pretrain_bench.methods.training.checkpoint import load_weights, save_weights

_FORMATS: dict[ExportFormat, tuple[Layout, KernelOrder]] = {
    "minkowski-0.5": (MINKOWSKI, OWN_ORDER),
    "minkowski-0.4": (MINKOWSKI, "minkowski-0.4"),
    "spconv": (SPCONV, "spconv"),
    "pointcept": (POINTCEPT, "spconv"),
}


class Exported(NamedTuple):
    """Tensors by their names in the other project, their kernel order, and each tensor left out with the reason."""

    weights: dict[str, Tensor]
    order: KernelOrder
    left_out: list[str]

    def save(self, path: Path) -> None:
        """Write a safetensors file if the name ends in .safetensors, else a PyTorch file with the key `state_dict`."""
        if path.suffix == ".safetensors":
            save_weights(self.weights, path, self.order)
            return
        with replacing(path) as temporary:
            torch.save({"state_dict": self.weights, KERNEL_ORDER: self.order}, temporary)


def export_checkpoint(backbone: Path, network: NetworkSettings, form: ExportFormat, partial: bool = False) -> Exported:
    """Read a backbone and convert it to another layout. `pointcept` keeps only tensors that SpUNet-v1m1 has in the same shape.

    The head (`final.*`), which a run of scratch stores too, is not exported.

    Raises DataError if the file cannot be read, or, unless `partial`, if the target has no place for some tensors; it names them.
    """
    layout, order = _FORMATS[form]
    places = spunet_shapes(network) if layout is POINTCEPT else None
    own = {n: value for n, value in load_weights(backbone).items() if not n.startswith(HEAD_PREFIX)}
    stored = {n: order_from_cube(n, value, order).contiguous() for n, value in own.items()}
    fitting = {
        n for n, value in stored.items() if places is None or places.get(layout.name_of(n)) == tuple(value.shape)
    }
    fitting = with_their_norms(fitting)
    prefix = SPUNET_PREFIX if places is not None else ""
    weights = {prefix + layout.name_of(n): value for n, value in stored.items() if n in fitting}
    left_out = [_why(n, tuple(v.shape), layout.name_of(n), places or {}) for n, v in stored.items() if n not in fitting]
    if left_out and not partial:
        raise DataError(
            f"{len(left_out)} of {len(left_out) + len(weights)} tensors have no counterpart of their shape in Pointcept's "
            f"SpUNet; --partial leaves them out: {'; '.join(left_out)}"
        )
    return Exported(weights, order, left_out)


def _why(name: str, shape: tuple[int, ...], there: str, places: Shapes) -> str:
    if there not in places:
        return f"{name}: SpUNet has no {there}"
    if places[there] == shape:
        return f"{name}: without its norm"
    return f"{name}: {shape}, SpUNet's {there} has {places[there]}"
