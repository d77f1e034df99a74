"""Check the untrusted artifacts of a stage before they are used."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from pretrain_bench.benchmarks.specs.backbone_shapes import HEAD_PREFIX, backbone_shapes
from pretrain_bench.benchmarks.specs.base import FileName, Spec
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.stage import TRAINING_ROWS, StageSpec
from pretrain_bench.harness.store.retention import PRETRAIN_FILES

MAX_HEADER_BYTES = 1 << 24
MAX_ENTRIES, MAX_DEPTH = 10_000, 16
_DTYPES = {"F32": np.float32, "I64": np.int64, "F64": np.float64, "F16": np.float16}


class TensorEntry(Spec):
    """One tensor in the header of a safetensors file; only dtypes used by this project's networks."""

    dtype: Literal["F16", "F32", "F64", "I64"]
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_NAME: TypeAdapter[str] = TypeAdapter(FileName)
_ENTRIES: TypeAdapter[dict[str, TensorEntry]] = TypeAdapter(dict[str, TensorEntry])


class InvalidOutput(DataError):
    """Unusable artifacts of a stage."""


def check_plain(artifacts: Path) -> None:
    """Raises InvalidOutput for entries under artifacts/ that are not folders or plain files with one hard link."""
    if artifacts.is_symlink() or not artifacts.is_dir():
        raise InvalidOutput("artifacts/ is missing or not a folder")
    _check_few(artifacts)
    for path in sorted(artifacts.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()) or (path.is_file() and path.stat().st_nlink != 1):
            raise InvalidOutput(
                f"artifacts/{path.relative_to(artifacts)}: a link or special file; only plain files are accepted"
            )


def _check_few(artifacts: Path) -> None:
    """Raises InvalidOutput for too many entries, too deep folders and unprintable names; walks without recursion."""
    count, waiting = 0, [(str(artifacts), 1)]
    while waiting:
        folder, depth = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if count > MAX_ENTRIES or depth > MAX_DEPTH:
                    raise InvalidOutput(
                        f"artifacts/ holds more than {MAX_ENTRIES} entries or {MAX_DEPTH} nested folders"
                    )
                if not entry.name.isprintable():
                    raise InvalidOutput(f"artifacts/: a name with control characters: {entry.name!r}")
                try:
                    _NAME.validate_python(os.path.relpath(entry.path, artifacts))
                except ValidationError as error:
                    raise InvalidOutput(f"artifacts/: {entry.name!r}: {error.errors()[0]['msg']}") from None
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))


def check_pretrain(spec: StageSpec, artifacts: Path, last: bool) -> None:
    """Check that a pre-training stage left finite tensors, and that the `last` one left a complete backbone of the right shapes.

    Raises InvalidOutput naming the file and the tensor.
    """
    for path in artifacts.rglob("*"):
        if path.is_file() and path.suffix not in PRETRAIN_FILES:
            raise InvalidOutput(
                f"artifacts/{path.relative_to(artifacts)}: pre-training leaves {' and '.join(PRETRAIN_FILES)} files only"
            )
    files = sorted(artifacts.rglob("*.safetensors"))
    if not files:
        raise InvalidOutput("the stage left no .safetensors file under artifacts/")
    for path in sorted(artifacts.rglob("*.json")):
        _check_json(path)
    if last:
        path = artifacts / "backbone.safetensors"
        if not path.is_file():
            raise InvalidOutput("the stage left no artifacts/backbone.safetensors")
        shapes = {name: entry.shape for name, entry in read_header(path)[0].items()}
        for name, shape in backbone_shapes(spec.network).items():
            if name not in shapes:
                raise InvalidOutput(f"backbone.safetensors: tensor {name!r} is missing")
            if shapes[name] != shape:
                raise InvalidOutput(f"backbone.safetensors: tensor {name!r} has shape {shapes[name]}, expected {shape}")
        known = {*backbone_shapes(spec.network), f"{HEAD_PREFIX}kernel", f"{HEAD_PREFIX}bias"}
        extra = sorted(set(shapes) - known)
        if extra:
            raise InvalidOutput(f"backbone.safetensors: unknown tensor {extra[0]!r}; do not save a projection head")
    for path in files:
        check_finite(path)


def check_features(artifacts: Path) -> None:
    """Raises InvalidOutput for features that are missing or not finite, naming the file and the tensor."""
    for path in sorted(artifacts.rglob("*.safetensors")):
        check_finite(path)
    if not (artifacts / TRAINING_ROWS).is_file():
        raise InvalidOutput(f"the stage left no artifacts/{TRAINING_ROWS}")


def _check_json(path: Path) -> None:
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise ValueError(f"more than {MAX_HEADER_BYTES} bytes")
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidOutput(f"{path.name}: not JSON: {error}") from None


def read_header(path: Path) -> tuple[dict[str, TensorEntry], int]:
    """The tensor entries of a safetensors file, and the offset of its data in bytes. Raises InvalidOutput for a damaged file."""
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
                raise ValueError(f"the size of tensor {name!r} does not match its shape")
        stop = 0
        for begin, end in sorted(entry.data_offsets for entry in entries.values()):
            if begin != stop:
                raise ValueError("its tensors overlap, or leave gaps")
            stop = end
        if path.stat().st_size != 8 + length + stop:
            raise ValueError("the length of the file does not match its header")
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
            raise InvalidOutput(f"{path.name}: tensor {name!r} has {bad} non-finite values")


def weights_sample(path: Path, each: int = 8) -> NDArray[np.float32]:
    """(N,) the first `each` values of every kernel (tensor with two or more dimensions) of a safetensors file, by name: enough to
    distinguish two trainings. Raises InvalidOutput for a damaged file, and OSError if it cannot be opened."""
    entries, start = read_header(path)
    values = [
        np.fromfile(
            path, _DTYPES[entry.dtype], min(each, math.prod(entry.shape)), offset=start + entry.data_offsets[0]
        ).astype(np.float32)
        for _, entry in sorted(entries.items())
        if len(entry.shape) > 1
    ]
    return np.concatenate(values) if values else np.zeros(0, np.float32)
