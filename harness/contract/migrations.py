"""Migrate records of older versions to the current one, with a function for each step. Frozen old files are kept as tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from pretrain_bench.harness.contract.records import SCHEMA_VERSION, Provenance, Record
from pretrain_bench.harness.contract.stage import canonical_json, hashes_as_written

Plain = dict[str, Any]


class WrongHash(ValueError):
    """A record that does not match its own hash."""


def load_record(plain: Plain) -> Record:
    """Load a record of any version as the current model. An older record's hash is checked before it is sealed anew. Consumes
    `plain`.

    Raises WrongHash, pydantic's ValidationError, and ValueError for data that is not a record.
    """
    if not isinstance(plain, dict):
        raise ValueError("not a mapping")
    version = plain.get("schema_version", 1)
    if version == SCHEMA_VERSION or not isinstance(version, int) or version not in STEPS:
        record = Record.model_validate(_with_shared_provenance(plain))
        plain.pop("sha256", None)
        if record.sha256 not in hashes_as_written(plain):
            raise WrongHash("the record does not match its own hash; it was edited or damaged")
        return record
    if _HASHES[version](plain) != plain.get("sha256"):
        raise WrongHash("the record does not match its own hash; it was edited or damaged")
    while version in STEPS:
        plain = STEPS[version](plain)
        version += 1
    return Record.model_validate(plain).sealed()


def _with_shared_provenance(plain: Plain) -> Plain:
    """The record with its provenance shared as one object among the runs of a machine; unchanged if it is damaged."""
    try:
        return {**plain, "provenance": _provenance(to_json(plain["provenance"]))}
    except (ValueError, KeyError):
        return plain  # validation reports the error with its location


@lru_cache(maxsize=1024)
def _provenance(payload: bytes) -> Provenance:
    return Provenance.model_validate(from_json(payload))


def compact(record: Record) -> Record:
    """The same record in less memory, for keeping many: records share their sets of set fields, a third of the memory."""
    for model in (record, record.cell, record.ledger, record.measured):
        if model is not None:
            names = model.__pydantic_fields_set__
            object.__setattr__(model, "__pydantic_fields_set__", _FIELD_SETS.setdefault(frozenset(names), names))
    return record


_FIELD_SETS: dict[frozenset[str], set[str]] = {}


def _hash_1(plain: Plain) -> str:
    """Version 1: everything but the hash itself, and `image` if there is none."""
    content = {k: v for k, v in plain.items() if k != "sha256" and not (k == "image" and v is None)}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _from_1(plain: Plain) -> Plain:
    """Version 2 adds GPU time and memory and the limits that the executor could not enforce; older records know none of them."""
    return {**plain, "schema_version": 2}


STEPS: dict[int, Callable[[Plain], Plain]] = {1: _from_1}
_HASHES: dict[int, Callable[[Plain], str]] = {1: _hash_1}
