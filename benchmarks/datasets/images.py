"""Decoding pictures from files and from bytes, with errors that name them. Pillow is imported when one is decoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.support.errors import DataError

MOST_PIXELS = 50_000_000
"""Of a colour or depth picture: those of the datasets here have at most 1.5 million."""
_PNG = b"\x89PNG\r\n\x1a\n"
_BROKEN = (OSError, ValueError, SyntaxError, EOFError)
_MODES = {
    "L": "8-bit greyscale",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour",
    "1": "black and white",
    "F": "float",
}


def decode_colour(source: Path | bytes, name: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Grey of 16 bits is converted (`value_checks.byte_colours`); of RGB with 16 bits the high byte is read.

    Raises DataError where it does not decode whole, or is not of `size` (width, height).
    """
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            _check_size(image.size, size, name)
            if image.mode.startswith(("I", "F")):
                grey = value_checks.byte_colours([np.asarray(image)], [name], [])
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded: {_reason(error)}") from None


def decode_depth(source: Path | bytes, name: str, size: tuple[int, int] | None = None) -> NDArray[np.uint16]:
    """(H, W) uint16 of a 16-bit greyscale picture. Raises DataError for anything else."""
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            _check_size(image.size, size, name)
            if not image.mode.startswith("I"):
                kind = f"a picture in {_MODES.get(image.mode, image.mode)}"
                raise DataError(f"{name}: expected a 16-bit greyscale depth image, found {kind}")
            depth = np.asarray(image)
            if depth.min() < 0 or depth.max() > 65535:
                raise DataError(f"{name}: depth of {depth.max()} does not fit into 16 bits")
            return depth.astype(np.uint16)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded: {_reason(error)}") from None


def colour_bits(source: Path | bytes) -> int:
    """Bits of a channel as a picture is stored: those of a PNG's header, 8 of any other format."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(len(_PNG) + 17)
    return source[len(_PNG) + 16] if source.startswith(_PNG) and len(source) > len(_PNG) + 16 else 8


def picture_size(source: Path | bytes, name: str) -> tuple[int, int]:
    """(width, height) of a picture, from its header. Raises DataError, with `name`, where it has none."""
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return image.size
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded: {_reason(error)}") from None


def encode_depth(depth: NDArray[np.uint16]) -> bytes:
    """16-bit PNG of a depth image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def encode_colour(colour: NDArray[np.uint8], quality: int | None = None) -> bytes:
    """PNG, or JPEG where a quality is given, of an (H, W, 3) uint8 RGB picture."""
    from PIL import Image

    buffer = io.BytesIO()
    if quality is None:
        Image.fromarray(colour).save(buffer, format="PNG", compress_level=3)
    else:
        Image.fromarray(colour).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """Why a picture does not decode. Pillow's message for a file that is not a picture contains a path or a memory address."""
    from PIL import UnidentifiedImageError

    return "it is not a picture" if isinstance(error, UnidentifiedImageError) else str(error)


def _check_size(actual: tuple[int, int], expected: tuple[int, int] | None, name: str) -> None:
    """Raises DataError, before a picture is decoded, for one of another size and for one of more than MOST_PIXELS."""
    if actual[0] * actual[1] > MOST_PIXELS:
        raise DataError(f"{name}: the picture is {actual[0]}x{actual[1]}, expected at most {MOST_PIXELS:,} pixels")
    if expected is not None and actual != expected:
        raise DataError(f"{name}: the picture is {actual[0]}x{actual[1]}, expected {expected[0]}x{expected[1]}")
