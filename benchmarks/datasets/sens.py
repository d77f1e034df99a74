"""ScanNet's .sens streams: one RGB-D recording in one file, read frame by frame (spec G.1).

Little endian: a header, then for each frame its pose, two time stamps, two lengths and two compressed pictures. Unwanted frames
are skipped by seeking, so a file of several gigabytes is never in memory at once.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.reading import cannot_read

VERSION = 4
COLOUR = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH = {0: "raw", 1: "zlib", 2: "occi"}
MAX_SIDE = 16384
_FRAME = struct.Struct("<16fQQQQ")


class SensHeader(NamedTuple):
    """The header before the frames. Intrinsics and extrinsics are (4, 4), sizes (width, height); `depth_shift` is depth units per
    metre."""

    sensor: str
    intrinsic_colour: NDArray[np.float64]
    extrinsic_colour: NDArray[np.float64]
    intrinsic_depth: NDArray[np.float64]
    extrinsic_depth: NDArray[np.float64]
    colour_compression: str
    depth_compression: str
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    frames: int


class SensFrame(NamedTuple):
    """One frame as stored. `pose` (4, 4) is camera-to-world, infinite where tracking was lost."""

    number: int
    pose: NDArray[np.float64]
    time_colour: int
    time_depth: int
    colour: bytes
    depth: bytes


def read_header(path: Path) -> SensHeader:
    """Read only the header. Raises DataError for anything that is not a .sens file of version 4."""
    with _open(path) as file:
        return _header(file, path)


def read_frames(path: Path, stride: int = 1) -> Iterator[SensFrame]:
    """Yield every `stride`-th frame, still compressed. Raises DataError naming frame and byte if the file is truncated or
    damaged."""
    with _open(path) as file:
        header = _header(file, path)
        total = os.fstat(file.fileno()).st_size
        for number in range(header.frames):
            start = file.tell()
            where = f"{path}, frame {number} of {header.frames} at byte {start}"
            fields = file.read(_FRAME.size)
            if len(fields) < _FRAME.size:
                raise DataError(f"{where}: the file ends there, so it is truncated; copy it again")
            *pose, time_colour, time_depth, colour_bytes, depth_bytes = _FRAME.unpack(fields)
            if file.tell() + colour_bytes + depth_bytes > total:
                raise DataError(
                    f"{where}: its pictures take {colour_bytes} and {depth_bytes} bytes, but the file ends at {total}"
                )
            if number % stride:
                file.seek(colour_bytes + depth_bytes, os.SEEK_CUR)
                continue
            matrix = np.array(pose).reshape(4, 4)
            yield SensFrame(number, matrix, time_colour, time_depth, file.read(colour_bytes), file.read(depth_bytes))


def frame_colour(header: SensHeader, frame: SensFrame, name: str) -> NDArray[np.uint8]:
    """Decode the colour of a frame to (H, W, 3) uint8 RGB. Raises DataError, naming `name`, if it is damaged."""
    width, height = header.colour_size
    if header.colour_compression == "raw":
        if len(frame.colour) != width * height * 3:
            raise DataError(f"{name}: {len(frame.colour)} bytes of raw colour, expected {width * height * 3}")
        return np.frombuffer(frame.colour, np.uint8).reshape(height, width, 3)
    return images.decode_colour(frame.colour, name, header.colour_size)


def frame_depth(header: SensHeader, frame: SensFrame, name: str) -> NDArray[np.uint16]:
    """Decode the depth of a frame to (H, W) uint16, in units of 1 / depth_shift metres. Raises DataError if it is damaged."""
    width, height = header.depth_size
    expected = width * height * 2
    content = frame.depth
    if header.depth_compression == "zlib":
        try:
            # Decompress at most one byte more than expected, however much data the stream contains.
            content = zlib.decompressobj().decompress(content, expected + 1)
        except zlib.error as error:
            raise DataError(f"{name}: depth cannot be decompressed: {error}") from None
    if len(content) != expected:
        raise DataError(f"{name}: {len(content)} bytes of depth, expected {expected} ({width}x{height} of 16 bits)")
    return np.frombuffer(content, "<u2").reshape(height, width)


def write_sens(path: Path, header: SensHeader, frames: Iterable[SensFrame]) -> None:
    """Write a stream; `header.frames` must equal the number of frames (ValueError otherwise)."""
    with path.open("wb") as file:
        sensor = header.sensor.encode()
        file.write(struct.pack("<IQ", VERSION, len(sensor)) + sensor)
        for matrix in header[1:5]:
            file.write(np.asarray(matrix, "<f4").tobytes())
        colour = {v: k for k, v in COLOUR.items()}[header.colour_compression]
        depth = {v: k for k, v in DEPTH.items()}[header.depth_compression]
        sizes = (*header.colour_size, *header.depth_size)
        file.write(struct.pack("<iiIIIIfQ", colour, depth, *sizes, header.depth_shift, header.frames))
        count = 0
        for frame in frames:
            numbers = (frame.time_colour, frame.time_depth, len(frame.colour), len(frame.depth))
            file.write(_FRAME.pack(*np.asarray(frame.pose, float).reshape(-1), *numbers))
            file.write(frame.colour + frame.depth)
            count += 1
    if count != header.frames:
        raise ValueError(f"{path}: {count} frames written, but the header says {header.frames}")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise cannot_read(path, error) from None


def _header(file: BinaryIO, path: Path) -> SensHeader:
    def take(layout: str) -> tuple:
        content = file.read(struct.calcsize(layout))
        if len(content) < struct.calcsize(layout):
            raise DataError(f"{path}: the file ends within its header, so it is truncated; copy it again")
        return struct.unpack(layout, content)

    version, length = take("<IQ")
    if version != VERSION:
        raise DataError(f"{path}: not a .sens file of version {VERSION} (its first number is {version})")
    if length > 4096:
        raise DataError(f"{path}: its sensor name would be {length} bytes long; the header is damaged")
    sensor = bytes(take(f"<{length}s")[0]).decode("utf-8", "replace")
    matrices = [np.array(take("<16f")).reshape(4, 4) for _ in range(4)]
    colour, depth, cw, ch, dw, dh, shift, frames = take("<iiIIIIfQ")
    if colour not in COLOUR or depth not in DEPTH:
        raise DataError(f"{path}: unknown compression of colour ({colour}) or depth ({depth})")
    if DEPTH[depth] == "occi":
        raise DataError(f"{path}: depth is compressed with occipital's codec, which this reader does not support")
    if not (0 < cw <= MAX_SIDE and 0 < ch <= MAX_SIDE and 0 < dw <= MAX_SIDE and 0 < dh <= MAX_SIDE):
        raise DataError(f"{path}: pictures of {cw}x{ch} (colour) and {dw}x{dh} (depth); the header is damaged")
    if not (np.isfinite(shift) and shift > 0) or not np.isfinite(matrices[2]).all():
        raise DataError(f"{path}: depth shift {shift} or depth intrinsics are not usable; the header is damaged")
    if frames * _FRAME.size > os.fstat(file.fileno()).st_size:
        raise DataError(f"{path}: {frames} frames do not fit into this file; it is truncated, or its header is damaged")
    return SensHeader(
        sensor, matrices[0], matrices[1], matrices[2], matrices[3], COLOUR[colour], DEPTH[depth], (cw, ch), (dw, dh),
        float(shift), frames,
    )  # fmt: skip
