"""`make verify-gpu-minkowski`: both backends side by side on a GPU; writes docs/verification/gpu-minkowski.json.

Needs a GPU, and MinkowskiEngine 0.5.4 built for CUDA (see docs/sparse.md) in the running environment.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import torch

from tests.verification.gpu import network_speed, precision
from tests.verification.minkowski import BOUNDS, clouds, compare, within
from tests.verification.report import write_report

SIZES = (50_000, 200_000)
WHAT = "Res16UNet34C on the embedded engine against MinkowskiEngine 0.5.4, on a GPU, fp32"


def speeds() -> list[dict[str, Any]]:
    """Forward + backward of the full network with both backends."""
    rows: list[dict[str, Any]] = []
    for voxels in SIZES:
        for backend in ("torch", "minkowski"):
            rows.append({"backend": backend, "voxels": voxels, **network_speed(backend, "fp32", voxels)})
            print(rows[-1], flush=True)
            torch.cuda.empty_cache()
    return rows


def main() -> int:
    """Compare and write the report; returns 1 if a difference exceeds its bound."""
    if not torch.cuda.is_available() or importlib.util.find_spec("MinkowskiEngine") is None:
        missing = "MinkowskiEngine is not installed" if torch.cuda.is_available() else "no CUDA device was at hand"
        write_report("gpu-minkowski", WHAT, "not run", why=missing)
        return 0
    torch.backends.cudnn.allow_tf32 = False
    coordinates, features = clouds()["procedural room"]
    with precision("fp32"):
        result = compare((coordinates.cuda(), features.cuda()))
    print(result, flush=True)
    good = within(result)
    write_report(
        "gpu-minkowski", WHAT, "ok" if good else "failed", gpu=torch.cuda.get_device_name(0), bounds=BOUNDS, result=result,
        speed=speeds(),
    )  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
