"""Specs of many runs. But for seed and parents, ten thousand differ in a few hundred ways; only those are validated and kept."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from pretrain_bench.benchmarks.specs.base import MOST_SEED
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.contract.stage import KEY_LENGTH, StageSpec, hashes_as_written
from pretrain_bench.harness.store.store import SPEC, read_spec


class SharedSpec:
    """A spec that stands for all that differ from it only in seed and parents. It is equal to itself alone, so a function of it
    can be cached."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec


class ReadSpec(NamedTuple):
    """The spec of one run, and the one that it shares with others."""

    spec: StageSpec
    shared: SharedSpec


class SpecReader:
    """Reads the specs of one store."""

    def __init__(self) -> None:
        self._known: dict[bytes, SharedSpec] = {}

    def read(self, folder: Path) -> ReadSpec:
        """The spec in a run folder; its key is checked. Raises WrongUse as `read_spec` does."""
        rest = b""
        try:
            payload = read_json(folder / SPEC, below=folder)
            seed, parents = payload["seed"], payload["parents"]
            free = {
                "seed": 0 if type(seed) is int and 0 <= seed <= MOST_SEED else seed,
                "parents": {name: "" if isinstance(parent, str) else parent for name, parent in parents.items()},
            }
            rest = to_json({**payload, **free})
            shared = self._known.get(rest)
            if shared is not None and folder.name in (h[:KEY_LENGTH] for h in hashes_as_written(payload)):
                return ReadSpec(shared.spec.copy_with(seed=seed, parents=parents), shared)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            pass
        spec = read_spec(folder)  # this also reports what is wrong with a file
        return ReadSpec(spec, self._known.setdefault(rest, SharedSpec(spec)))
