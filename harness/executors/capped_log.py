"""The log of a stage that is treated as hostile: kept up to a size."""

from __future__ import annotations

from typing import BinaryIO

MAX_LOG_BYTES = 16 << 20


class CappedLog:
    """Keeps the first MAX_LOG_BYTES that a stage prints and discards the rest; the log then says so."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = MAX_LOG_BYTES

    def add(self, part: bytes) -> None:
        """Keep a part of the output, where it still fits. Raises OSError where the disk cannot take it."""
        self.file.write(part[: self.left])
        if 0 < self.left <= len(part):
            self.file.write(b"\n[the log is longer; what follows was not kept]\n")
        self.left = max(0, self.left - len(part))
