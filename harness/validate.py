"""Checks what came out of a stage before anybody believes it, and computes the number that counts."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from benchmarks.backbone import HEAD_PREFIX, backbone_shapes
from benchmarks.errors import DataError
from benchmarks.metrics import predictions
from benchmarks.metrics.scorer import SemanticScorer
from benchmarks.specs import SemanticRecipe, Spec
from harness.contract.stage import StageSpec
from harness.data import PreparedDataset

CHECKPOINTS = ("final", "selected", "best")
MAX_HEADER_BYTES = 1 << 24
PRETRAIN_SUFFIXES = (".safetensors", ".json")
_DTYPES = {"F32": np.float32, "I64": np.int64, "F64": np.float64, "F16": np.float16}

Metrics = dict[str, float | None]


class TensorEntry(Spec):
    """One tensor in the header of a safetensors file; only the types that networks here have."""

    dtype: Literal["F16", "F32", "F64", "I64"]
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_ENTRIES: TypeAdapter[dict[str, TensorEntry]] = TypeAdapter(dict[str, TensorEntry])


class InvalidOutput(DataError):
    """What a stage left behind cannot be used."""


def check_plain(artifacts: Path) -> None:
    """Raises InvalidOutput for anything under artifacts/ that is not a plain file or folder with one name."""
    if artifacts.is_symlink() or not artifacts.is_dir():
        raise InvalidOutput("artifacts/ is missing or not a folder")
    for path in sorted(artifacts.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()) or (path.is_file() and path.stat().st_nlink != 1):
            raise InvalidOutput(
                f"artifacts/{path.relative_to(artifacts)}: a link or special file; only plain files are taken"
            )


def check_pretrain(spec: StageSpec, artifacts: Path, last: bool) -> None:
    """A pre-training stage leaves finite tensors; the last one a whole backbone of the right shapes.

    Raises InvalidOutput naming the file and tensor.
    """
    for path in artifacts.rglob("*"):
        if path.is_file() and path.suffix not in PRETRAIN_SUFFIXES:
            raise InvalidOutput(
                f"artifacts/{path.relative_to(artifacts)}: pre-training leaves {' and '.join(PRETRAIN_SUFFIXES)} files only"
            )
    files = sorted(artifacts.glob("*.safetensors"))
    if not files:
        raise InvalidOutput("the stage left no .safetensors file under artifacts/")
    for path in files:
        check_finite(path)
    if last:
        path = artifacts / "backbone.safetensors"
        if not path.is_file():
            raise InvalidOutput("the stage left no artifacts/backbone.safetensors")
        found = {name: entry.shape for name, entry in read_header(path)[0].items()}
        for name, shape in backbone_shapes(spec.network).items():
            if name not in found:
                raise InvalidOutput(f"backbone.safetensors: tensor {name!r} is missing")
            if found[name] != shape:
                raise InvalidOutput(f"backbone.safetensors: tensor {name!r} has shape {found[name]}, expected {shape}")
        known = {*backbone_shapes(spec.network), f"{HEAD_PREFIX}kernel", f"{HEAD_PREFIX}bias"}
        extra = sorted(set(found) - known)
        if extra:
            raise InvalidOutput(f"backbone.safetensors: unknown tensor {extra[0]!r}; a projection head stays behind")


def read_header(path: Path) -> tuple[dict[str, TensorEntry], int]:
    """Tensor entries of a safetensors file and the offset of its data. Raises InvalidOutput for a damaged file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("the header is too long")
            header = json.loads(file.read(length))
        entries = _ENTRIES.validate_python({k: v for k, v in header.items() if k != "__metadata__"})
        for name, entry in entries.items():
            begin, end = entry.data_offsets
            if end - begin != math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize:
                raise ValueError(f"the size of tensor {name!r} does not fit its shape")
        stop = max((entry.data_offsets[1] for entry in entries.values()), default=0)
        if path.stat().st_size != 8 + length + stop:
            raise ValueError("the file is shorter or longer than its header says")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidOutput(f"{path.name}: not a safetensors file: {first['loc']}: {first['msg']}") from None
    except (OSError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise InvalidOutput(f"{path.name}: not a safetensors file: {error}") from None
    return entries, 8 + length


def check_finite(path: Path) -> None:
    """Raises InvalidOutput for a damaged file, or a tensor with NaN or infinity."""
    entries, start = read_header(path)
    for name, entry in entries.items():
        count, offset = math.prod(entry.shape), start + entry.data_offsets[0]
        values = np.fromfile(path, dtype=_DTYPES[entry.dtype], count=count, offset=offset)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise InvalidOutput(f"{path.name}: tensor {name!r} has {bad} values that are not finite")


def score_finetune(spec: StageSpec, artifacts: Path, data: PreparedDataset) -> Metrics:
    """The metrics that count, from saved predictions and the prepared labels, outside the stage.

    Raises InvalidOutput for predictions that are missing, damaged or of another length.
    """
    assert spec.split is not None and spec.data is not None and isinstance(spec.recipe, SemanticRecipe)
    scorer = SemanticScorer(data.folder, spec.split.test, spec.recipe.voxel_metres, len(spec.data.classes))
    metrics: Metrics = {}
    for which in CHECKPOINTS:
        if which == "selected" and not spec.split.selection:
            continue
        folder = artifacts / "predictions" / which
        try:
            arrays = {s: predictions.read_semantic(folder, s, scorer.voxels(s)) for s in spec.split.test}
            scores = scorer.score(arrays)
        except (DataError, ValueError) as error:
            raise InvalidOutput(f"predictions/{which}: {error}") from None
        metrics.update({f"{name}_{which}": value for name, value in scores.items()})
    return metrics


def disagreement(own: Metrics, stage: Metrics) -> str | None:
    """The first metric that the stage reported differently, in words; None where they agree."""
    for name, value in own.items():
        told = stage.get(name)
        same = told is None if value is None else told is not None and abs(told - value) < 1e-9
        if not same:
            return f"{name}: the stage says {told}, its predictions give {value}"
    return None
