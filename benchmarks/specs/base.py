"""The strict base model of all specs, and shared field types.

Units are part of field names (`wall_seconds`, `voxel_metres`). Unknown keys are errors. `J-n` in a description is an item of the
decision register (docs/specification/decisions.md): a question on which the sources differ or are silent.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """Base of every model here: immutable, strict about keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def copy_with(self, **values: object) -> Self:
        """A copy with other values, which are not validated: as `model_copy` with `update`, in half the time, for large
        matrices and stores. Copies share one set of explicitly set fields."""
        copy = type(self).__new__(type(self))
        object.__setattr__(copy, "__dict__", {**self.__dict__, **values})
        for slot in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(copy, slot, getattr(self, slot))
        return copy


def is_none(value: object) -> bool:
    """For `exclude_if` of an optional field added later: if unset, it does not change hashes of older files."""
    return value is None


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
MOST_SEED = 2**64 - 1
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
"""Seed of a random stream: unsigned 64 bits, as torch accepts it."""


def _stays_below(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or not name.isprintable():
        raise ValueError("expected a relative name without `..`, backslashes or control characters")
    return name


FileName = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_stays_below)]
"""A file below a folder, such as `predictions/final/room.npz`; the folder is untrusted."""
FolderName = Annotated[
    str,
    Field(min_length=1, max_length=255, pattern=r"^[^/]*$"),
    AfterValidator(_stays_below),
]
"""One folder or file, such as a scene: a name without a path."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _upwards(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("expected two positive numbers, the lower bound first")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_upwards)]
"""Lower and upper bound of a uniform draw."""

Selection = Literal["held_out", "none"]
"""Which training scenes select a checkpoint: a held-out tenth, or none, so that all of them train."""
