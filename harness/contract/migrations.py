"""Records of older versions, brought to today's: one function for each step. Frozen old files are kept as tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from harness.contract.records import SCHEMA_VERSION, Record
from harness.contract.stage import canonical_json

Plain = dict[str, Any]


class WrongHash(ValueError):
    """A record that does not match the hash that it carries."""


def load_record(plain: Plain) -> Record:
    """A record of any version that there was, as today's model; an older one is sealed anew after its own hash was checked.

    Raises WrongHash, pydantic's ValidationError, and ValueError for what is no record at all.
    """
    if not isinstance(plain, dict):
        raise ValueError("not a mapping")
    version = plain.get("schema_version", 1)
    if version == SCHEMA_VERSION or version not in STEPS:
        record = Record.model_validate(plain)
        if not _gives(plain, record.sha256):
            raise WrongHash("the record does not match its own hash; it was edited or damaged")
        return record
    if _HASHES[version](plain) != plain.get("sha256"):
        raise WrongHash("the record does not match its own hash; it was edited or damaged")
    while version in STEPS:
        plain = STEPS[version](plain)
        version += 1
    return Record.model_validate(plain).sealed()


def _gives(plain: Plain, sha256: str) -> bool:
    """Whether a record as it was read gives its hash. It is hashed as it was written: without fields that came later. One that
    was written sorted is canonical as soon as it is compact, but for the form of tiny numbers."""
    content = {k: v for k, v in plain.items() if k != "sha256"}
    texts = (to_json, lambda data: canonical_json(data).encode())
    return any(hashlib.sha256(text(content)).hexdigest() == sha256 for text in texts)


def _hash_1(plain: Plain) -> str:
    """Version 1: everything but the hash itself, and `image` where there is none."""
    content = {k: v for k, v in plain.items() if k != "sha256" and not (k == "image" and v is None)}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _from_1(plain: Plain) -> Plain:
    """Version 2 counts GPU time and memory and names what the executor could not enforce; before, nothing was known of them."""
    return {**plain, "schema_version": 2}


STEPS: dict[int, Callable[[Plain], Plain]] = {1: _from_1}
_HASHES: dict[int, Callable[[Plain], str]] = {1: _hash_1}
