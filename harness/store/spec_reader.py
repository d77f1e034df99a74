"""Read the specs of many runs. Apart from seed and parents, ten thousand specs have a few hundred variants; only these are
kept."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from pretrain_bench.benchmarks.specs.base import MOST_SEED
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.contract.stage import KEY_LENGTH, StageSpec, hashes_as_written
from pretrain_bench.harness.store.store import SPEC, read_spec


class SharedSpec:
    """A spec that represents all specs that differ from it only in seed and parents. It compares by identity, so that
    functions of it can be cached."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec


class ReadSpec(NamedTuple):
    """The spec of one run, and the shared spec that represents it."""

    spec: StageSpec
    shared: SharedSpec


class SpecReader:
    """Reads the specs of one store."""

    def __init__(self) -> None:
        self._known: dict[bytes, SharedSpec] = {}

    def read(self, folder: Path) -> ReadSpec:
        """Read the spec in a run folder and check its key. Raises WrongUse as `read_spec`."""
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
        spec = read_spec(folder)  # this also reports errors in the file
        return ReadSpec(spec, self._known.setdefault(rest, SharedSpec(spec)))
