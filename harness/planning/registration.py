"""Registrations: the cells of a suite, recorded before it runs, so that an audit can name missing ones later."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.base import Name, Spec
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.support.errors import WrongUse, writing
from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.store import signatures
from pretrain_bench.harness.store.machine import project_version
from pretrain_bench.harness.store.store import write_json


class RegisteredCell(Spec):
    """A planned cell, and the key of its fine-tuning: the hash of everything that should determine its result."""

    cell: Cell
    key: str


class Registration(Spec):
    """The registered cells, the time, and the version of this project."""

    format: Literal[1] = 1
    suite: Name
    suite_version: int
    registered_at: str
    project_version: str
    cells: tuple[RegisteredCell, ...]


def register(path: Path, suite: tuple[str, int], cells: Iterable[PlannedCell], key: Path | None) -> Registration:
    """Write the applicable cells to `path`, and with a `key` (SSH) sign them in `path`.sig; `suite` is its name and version.

    A file that already registers the same cells is kept with its time, so that a command can be repeated. Raises WrongUse if it
    registers other cells, and EnvironmentCannot if it cannot be written or signed.
    """
    planned = tuple(RegisteredCell(cell=c.cell, key=c.stages[-1].spec.key) for c in cells if c.stages)
    if path.exists():
        earlier = read_registration(path)
        if earlier.cells != planned:
            raise WrongUse(
                f"--register {path}: already registers {len(earlier.cells)} other cells or keys since {earlier.registered_at}; "
                "registrations are never changed, so name another file"
            )
    else:
        earlier = Registration(
            suite=suite[0], suite_version=suite[1], registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
            project_version=project_version(), cells=planned,
        )  # fmt: skip
        with writing(path, "registration (--register names another file)"):
            write_json(path, earlier.model_dump(mode="json"), durable=True)
    if key is not None and not signatures.signature_of(path).exists():
        signatures.sign(path, key)
    return earlier


def read_registration(path: Path) -> Registration:
    """Read a registration. Raises WrongUse if the file is not one."""
    try:
        return Registration.model_validate_json(read_plain(path))
    except FileNotFoundError:
        raise WrongUse(f"{path}: no such file; `bench plan --register FILE` writes a registration") from None
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise WrongUse(
            f"{path}: not a registration written by `--register` of `bench plan` or `bench run`: {why}"
        ) from None
