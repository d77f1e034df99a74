"""The size-limited log of an untrusted stage."""

from __future__ import annotations

from typing import BinaryIO

MAX_LOG_BYTES = 16 << 20


class CappedLog:
    """Keeps the first MAX_LOG_BYTES of a stage's output, then notes the cut in the log and discards the rest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = MAX_LOG_BYTES

    def add(self, part: bytes) -> None:
        """Append output that still fits. Raises OSError if the disk is full."""
        self.file.write(part[: self.left])
        if 0 < self.left <= len(part):
            self.file.write(b"\n[the log is longer; what follows was not kept]\n")
        self.left = max(0, self.left - len(part))
