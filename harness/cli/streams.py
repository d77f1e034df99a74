"""Standard streams that cannot fail: closed streams are opened, and characters outside of the encoding are escaped."""

from __future__ import annotations

import io
import os
import sys


def secure_streams() -> None:
    """Open closed standard streams on the null device, so that no other file takes their numbers, and let stdout and stderr
    escape (as `\\xfc`) the characters that their encoding lacks."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_closed(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
