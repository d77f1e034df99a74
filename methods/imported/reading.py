"""Reads checkpoints of other projects: tensors and plain settings. No code in them is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain_bench.benchmarks.specs.checkpoint import KERNEL_ORDER, PARTIAL
from pretrain_bench.benchmarks.support.archives import check_torch_file
from pretrain_bench.benchmarks.support.errors import DataError

DEEPEST_NEST = 4


class CheckpointContent(NamedTuple):
    """Mappings of names to tensors, by the path of keys to each, and the statements of the file about itself."""

    nests: dict[tuple[str, ...], dict[str, Tensor]]
    statements: dict[str, str]


class _Opaque:
    """Replaces a library class among a checkpoint's pickled settings; it ignores its arguments and state."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# PointContrast's releases contain OmegaConf settings, Lightning's files AttributeDicts and paths, others numpy scalars. Only the
# names are allowed; code of the libraries is not executed.
_SETTINGS_CLASSES = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "collections.defaultdict",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
)
_SETTINGS_MAPPINGS = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
"""Subclasses of dict: torch's safe loader only fills plain dicts."""


def read_checkpoint(path: Path) -> CheckpointContent:
    """Read a safetensors or PyTorch file, whatever its name. Raises DataError if it is missing, damaged, of another format, or
    holds more than tensors and known settings."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{":
            return _safetensors(path)
        check_torch_file(path)
        allowed: list[Any] = [(_Opaque, name) for name in _SETTINGS_CLASSES]
        allowed += [(dict, name) for name in _SETTINGS_MAPPINGS]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # refusals are reported below
            data = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (
        Exception
    ) as error:  # torch and safetensors raise many types, some advising at length to load the file anyway
        raise _refused(path, error) from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a mapping of names to tensors, got {type(data).__name__}")
    statements = {k: v for k in (KERNEL_ORDER, PARTIAL) if isinstance(v := data.get(k), str)}
    return CheckpointContent(dict(_nests(data, ())), statements)


def _safetensors(path: Path) -> CheckpointContent:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return CheckpointContent({(): {name: file.get_tensor(name) for name in file.keys()}}, file.metadata() or {})  # noqa: SIM118


def _nests(data: dict[Any, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping that holds tensors by name, at most DEEPEST_NEST deep."""
    tensors = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield keys, tensors
    if len(keys) < DEEPEST_NEST:
        for key, value in data.items():
            if isinstance(key, str) and isinstance(value, dict):
                yield from _nests(value, (*keys, key))


def _refused(path: Path, error: Exception) -> DataError:
    unknown = re.search(r"GLOBAL (\S+)", str(error))
    if unknown:
        return DataError(
            f"{path}: refused: it holds {unknown[1]}, which is neither a tensor nor a known setting; no code of it was run. "
            "If you trust the file, save only its tensors, as safetensors"
        )
    if "TorchScript" in str(error):
        return DataError(f"{path}: refused: it is a TorchScript program; save its state_dict instead")
    first = str(error).splitlines()[0] if str(error) else ""
    why = type(error).__name__ if "weights_only" in first or not first else first
    return DataError(f"{path}: refused: it is damaged, or not a file of weights: {why}")
