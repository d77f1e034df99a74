"""Errors shown to the user, each with the exit code of the command line."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL_BELOW_BYTES = 1 << 16


class BenchError(Exception):
    """An error that a user can act on: its message says what failed, where, what was expected and what to do next."""

    exit_code = 1


class WrongUse(BenchError):
    """The request itself is wrong: an unknown name, a bad value, a file that does not parse."""

    exit_code = 2


class EnvironmentCannot(BenchError):
    """The request is valid, but this machine cannot fulfil it: no space, no permission, no engine."""

    exit_code = 3


class DataError(WrongUse):
    """Unusable input data; the message names the file and, if applicable, the line."""


def cannot_write(folder: Path, error: OSError, doing: str) -> EnvironmentCannot:
    """The error for a folder that cannot be written, with what to do next. Some writers (numpy) report a full disk without its
    error number, so the free space is checked too."""
    there = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(there).free < FULL_BELOW_BYTES:
        return EnvironmentCannot(f"{folder}: {doing}: the disk is full; free some space and run the command again")
    return EnvironmentCannot(f"{folder}: {doing}: cannot be written: {reason_of(error)}")


def reason_of(error: OSError) -> str:
    """Why the operating system refused, without paths; if many files were copied in one call, why the first one failed."""
    if error.strerror:
        return error.strerror
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return re.sub(r"^\[Errno -?\d+\] |: '.*", "", str(error.args[0][0][-1]))
    return str(error)


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Wrap code that writes to a place the user chose. Raises EnvironmentCannot if the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, what) from error
