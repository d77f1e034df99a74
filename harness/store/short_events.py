"""Events in a bundle: without their running hashes, which follow from the lines and would be two fifths of its size."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO

from pretrain_bench.harness.contract.events import EVENTS_FILE, MAX_FILE_BYTES, MAX_LINE_BYTES, line_sha256

SHORT_FILE = f"{EVENTS_FILE}.short"
"""Name of such a file in an archive."""
HASHED, SHORT = re.compile(rb'^\{"before":"[0-9a-f]{64}"'), b'{"before":""'


def shorten(events: bytes) -> bytes | None:
    """The content without running hashes; None if `restored` would not give it back, as for a damaged file."""
    short = b"".join(HASHED.sub(SHORT, line) for line in io.BytesIO(events))
    try:
        return short if b"".join(restored(io.BytesIO(short))) == events else None
    except ValueError:
        return None


def restored(short: IO[bytes]) -> Iterator[bytes]:
    """The lines, each with the hash of the previous one where that was left out. Raises ValueError for a line or a file that is
    longer than events may be."""
    before, total = b"", 0
    for line in iter(lambda: short.readline(MAX_LINE_BYTES + 1), b""):
        if line.startswith(SHORT):
            line = b'{"before":"%s"%s' % (before, line[len(SHORT) :])
        total += len(line)
        if len(line) > MAX_LINE_BYTES or total > MAX_FILE_BYTES:
            raise ValueError(f"events of more than {MAX_LINE_BYTES:,} bytes a line, or {MAX_FILE_BYTES:,} in all")
        before = line_sha256(line).encode()
        yield line
