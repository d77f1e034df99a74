"""Decode pictures from files or bytes, with errors that name them. Pillow is imported on first use."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.support.errors import DataError

MOST_PIXELS = 50_000_000
"""Most pixels of a picture. The datasets read here have at most 1.5 million."""
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
    """Decode to (H, W, 3) uint8 RGB. Greyscale of 16 bits is converted by `value_checks.byte_colours`; RGB of 16 bits keeps its
    high byte.

    Raises DataError if the picture is damaged or its size is not `size` (width, height).
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
    """Decode a 16-bit greyscale picture to (H, W) uint16. Raises DataError for anything else."""
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            _check_size(image.size, size, name)
            if not image.mode.startswith("I"):
                kind = f"a picture in {_MODES.get(image.mode, image.mode)}"
                raise DataError(f"{name}: expected a 16-bit greyscale depth image, found {kind}")
            depth = np.asarray(image)
            if depth.min() < 0 or depth.max() > 65535:
                raise DataError(f"{name}: depth values reach {depth.max()}; expected 16 bits, 0 to 65535")
            return depth.astype(np.uint16)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded: {_reason(error)}") from None


def colour_bits(source: Path | bytes) -> int:
    """Bits per channel of a stored picture: from the header of a PNG, 8 for any other format."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(len(_PNG) + 17)
    return source[len(_PNG) + 16] if source.startswith(_PNG) and len(source) > len(_PNG) + 16 else 8


def picture_size(source: Path | bytes, name: str) -> tuple[int, int]:
    """(width, height) from a picture's header. Raises DataError, naming `name`, if it has none."""
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return image.size
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded: {_reason(error)}") from None


def encode_depth(depth: NDArray[np.uint16]) -> bytes:
    """Encode a depth image (H, W) as 16-bit PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def encode_colour(colour: NDArray[np.uint8], quality: int | None = None) -> bytes:
    """Encode an (H, W, 3) uint8 RGB picture as PNG, or as JPEG if `quality` is given."""
    from PIL import Image

    buffer = io.BytesIO()
    if quality is None:
        Image.fromarray(colour).save(buffer, format="PNG", compress_level=3)
    else:
        Image.fromarray(colour).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """Why a picture does not decode. Pillow's own message contains a path or memory address for a file that is not a picture."""
    from PIL import UnidentifiedImageError

    return "it is not a picture" if isinstance(error, UnidentifiedImageError) else str(error)


def _check_size(actual: tuple[int, int], expected: tuple[int, int] | None, name: str) -> None:
    """Raises DataError, before decoding, if a picture is larger than MOST_PIXELS or not of the expected size."""
    if actual[0] * actual[1] > MOST_PIXELS:
        raise DataError(f"{name}: the picture is {actual[0]}x{actual[1]}, expected at most {MOST_PIXELS:,} pixels")
    if expected is not None and actual != expected:
        raise DataError(f"{name}: the picture is {actual[0]}x{actual[1]}, expected {expected[0]}x{expected[1]}")
