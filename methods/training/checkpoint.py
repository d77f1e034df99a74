"""Weights and resumable state on disk. Files are replaced atomically, and loading never executes pickled code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pretrain_bench.benchmarks.specs.checkpoint import KERNEL_ORDER, OWN_ORDER, KernelOrder
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import replacing

BACKBONE_FILE = "backbone.safetensors"
"""The artifact of every pre-training: the 3D backbone."""


def save_weights(state: dict[str, Tensor], path: Path, order: KernelOrder = OWN_ORDER) -> None:
    """Write a state dict as safetensors, with the kernel order in its metadata, since tensors do not show it."""
    save_stating(state, path, {KERNEL_ORDER: order})


def save_stating(state: dict[str, Tensor], path: Path, statements: dict[str, str]) -> None:
    """Write a state dict as safetensors with metadata."""
    content = save({k: v.detach().cpu().contiguous() for k, v in state.items()}, statements)
    with replacing(path) as temporary:
        temporary.write_bytes(content)  # the library's own writer hides that the disk is full


def save_backbone(backbone: nn.Module, artifacts: Path, drop: str | None = None) -> None:
    """Write the backbone of a pre-training stage, without tensors whose names start with `drop`."""
    state = {k: v for k, v in backbone.state_dict().items() if drop is None or not k.startswith(drop)}
    save_weights(state, artifacts / BACKBONE_FILE)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a PyTorch file with tensors only. Raises DataError for anything else, and for NaN or infinite
    weights."""
    try:
        if path.open("rb").read(2) in (b"PK", b"\x80\x02"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = load_file(path)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"{path.name}: cannot be read as weights: {str(error).splitlines()[0]}") from None
    except Exception as error:  # torch raises pickle.UnpicklingError with pages of advice
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path.name}: refused: it holds more than tensors: {first}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path.name}: expected a mapping of names to tensors")
    refuse_not_finite(state, path.name)
    return state


def refuse_not_finite(weights: dict[str, Tensor], name: str) -> None:
    """Raise DataError if a weight is NaN or infinite, with the file's `name`, the first such tensor and its count."""
    broken = [(n, bad) for n, v in weights.items() if (bad := int((~torch.isfinite(v)).sum()))]
    if broken:
        first, bad = broken[0]
        raise DataError(
            f"{name}: {len(broken)} of {len(weights)} tensors hold NaN or infinite values, first {first!r} "
            f"({bad} of {weights[first].numel()}); the training that wrote them diverged; use an earlier checkpoint"
        )


def load_into(
    module: nn.Module, state: dict[str, Tensor], drop: tuple[str, ...], origin: str, counters: bool = True
) -> tuple[int, int]:
    """Load `state` into `module`, except tensors of the module whose names start with one of `drop`.

    With `counters` false, the batch norms' `num_batches_tracked` may be missing, as in files of PyTorch before 0.4.1. `origin`
    names the file in errors.

    Returns (tensors transferred, tensors of the module). Raises DataError, naming the tensor, if one is missing or has another
    shape: a partial load would give false results.
    """
    own = module.state_dict()
    wanted = [k for k in own if not (drop and k.startswith(drop))]
    if not counters:
        wanted = [k for k in wanted if k in state or not k.endswith("num_batches_tracked")]
    for key in wanted:
        if key not in state:
            raise DataError(f"{origin}: tensor {key!r} is missing; expected {len(wanted)} tensors, found {len(state)}")
        if state[key].shape != own[key].shape:
            raise DataError(
                f"{origin}: tensor {key!r} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            )
    module.load_state_dict({**own, **{k: state[k] for k in wanted}})
    return len(wanted), len(own)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write resumable training state atomically."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read resumable training state; None if the file is missing or unreadable."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # an unreadable state is discarded, and the stage starts again
        return None
