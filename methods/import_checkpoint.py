"""Weights of released checkpoints for this project's backbone.

`python -m pretrain_bench.methods.import_checkpoint FILE --origin NAME` converts one.

The trap (spec A.6, I-1): networks written for MinkowskiEngine before 0.5 keep the 3x3x3 kernels of their residual blocks in
another order of offsets ("hybrid"), with the same shapes. Nothing in a file tells the orders apart, so the origin has to be
named; loading without the permutation would succeed and compute nonsense.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import BenchError, DataError, writing
from pretrain_bench.methods.training.checkpoint import save_weights

# kernel_cube[k] = kernel_hybrid[HYBRID_TO_CUBE[k]]
HYBRID_TO_CUBE = (
    19, 15, 23, 11, 9, 13, 21, 17, 25, 5, 3, 7, 1, 0, 2, 6, 4, 8, 20, 16, 24, 12, 10, 14, 22, 18, 26,
)  # fmt: skip
BLOCK_KERNEL = re.compile(r"block\d\.\d+\.conv[12]\.kernel")


class Origin(NamedTuple):
    """How one project's files are laid out: the key that holds the weights, and prefixes of the backbone's names."""

    title: str
    holder: str | None
    prefixes: tuple[str, ...]
    hybrid: bool


ORIGINS = {
    "pointcontrast": Origin("PointContrast releases", "state_dict", ("module.", "encoder."), True),
    "csc": Origin("ContrastiveSceneContexts releases", "state_dict", ("module.", "encoder."), True),
    "csc-votenet": Origin("ContrastiveSceneContexts detection checkpoints", "state_dict", ("backbone_net.net.",), True),
    "depthcontrast": Origin("DepthContrast releases (voxel trunk)", "model", ("module.trunk.2.",), True),
    "minkowski-0.5": Origin(
        "networks trained with MinkowskiEngine 0.5 or later", "state_dict", ("module.", "model."), False
    ),
    "bench": Origin("backbones of this project", None, (), False),
}


class Imported(NamedTuple):
    """Backbone tensors by name, and what became of the file's."""

    weights: dict[str, Tensor]
    permuted: int
    missing: list[str]
    reshaped: list[str]
    dropped: list[str]


def import_checkpoint(path: Path, origin: str, partial: bool = False) -> Imported:
    """Read a checkpoint and convert its backbone to full-width Res16UNet34C in cubic order.

    Raises DataError where the file holds more than tensors and plain settings, or (unless `partial`) where one of the 372
    tensors is missing or has another shape. `final.*` and projection heads are dropped.
    """
    how = ORIGINS[origin]
    found = _strip(_state_dict(_read(path), how, path), how)
    expected = backbone_shapes(NetworkSettings())
    weights, missing, reshaped, permuted = {}, [], [], 0
    for name, shape in expected.items():
        value = found.get(name)
        if value is None:
            missing.append(name)
        elif tuple(value.shape) != shape:
            reshaped.append(f"{name}: {tuple(value.shape)}, expected {shape}")
        else:
            if how.hybrid and BLOCK_KERNEL.fullmatch(name):
                value = value[torch.tensor(HYBRID_TO_CUBE)]
                permuted += 1
            weights[name] = value
    if (missing or reshaped) and not partial:
        first = f"missing: {missing[0]}" if missing else reshaped[0]
        raise DataError(
            f"{path.name}: {len(weights)} of {len(expected)} tensors fit ({first}); a part of a backbone is taken only with "
            f"--partial, and --origin {origin} must be where the file comes from"
        )
    if not weights:
        raise DataError(f"{path.name}: no tensor of the backbone in it; is --origin {origin} right?")
    return Imported(weights, permuted, missing, reshaped, sorted(set(found) - set(expected)))


class _Opaque:
    """Stands for a class of a library that a checkpoint's settings were pickled with; keeps nothing and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# PointContrast's releases carry their OmegaConf settings. The names are allowed, the library's code is never run.
_SETTINGS_CLASSES = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "collections.defaultdict",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
)


def _read(path: Path) -> Any:
    allowed: list[Any] = [(_Opaque, name) for name in _SETTINGS_CLASSES]
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is refused is told below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (
        Exception
    ) as error:  # torch and safetensors raise many kinds, some with pages of advice to load it all the same
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise DataError(
                f"{path.name}: refused, it holds {found[1]}, which is no tensor and no known setting; nothing in it was run. "
                "Where you trust it, save its tensors alone, as safetensors"
            ) from None
        if "TorchScript" in str(error):
            raise DataError(f"{path.name}: refused, it is a TorchScript program, not weights") from None
        first = str(error).splitlines()[0] if str(error) else ""
        why = type(error).__name__ if "weights_only" in first or not first else first
        raise DataError(f"{path.name}: refused, it is damaged or no file of weights: {why}") from None


def _state_dict(data: Any, how: Origin, path: Path) -> dict[str, Tensor]:
    state = data.get(how.holder) if how.holder and isinstance(data, dict) and how.holder in data else data
    if not isinstance(state, dict):
        raise DataError(f"{path.name}: expected a mapping of names to tensors, under {how.holder!r} for {how.title}")
    return {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _strip(state: dict[str, Tensor], how: Origin) -> dict[str, Tensor]:
    """Names without the origin's prefix; where any name has one, the others belong to other networks and are left out."""
    for prefix in how.prefixes:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            return inside
    return state


def main(arguments: list[str] | None = None) -> int:
    """Convert a file; prints JSON with what was transferred. Exit code 2 where the file is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain_bench.methods.import_checkpoint", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--origin", required=True, choices=sorted(ORIGINS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--partial", action="store_true")
    options = parser.parse_args(arguments)
    try:
        imported = import_checkpoint(options.file, options.origin, options.partial)
        with writing(options.out, "backbone (--out names another file)"):
            options.out.parent.mkdir(parents=True, exist_ok=True)
            save_weights(imported.weights, options.out)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    report = {
        "transferred": len(imported.weights),
        "expected": len(backbone_shapes(NetworkSettings())),
        "permuted": imported.permuted,
        "missing": imported.missing,
        "reshaped": imported.reshaped,
        "dropped": imported.dropped,
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
