"""What decides, besides a stage's key, whether two runs give the same bits."""

from __future__ import annotations

import torch

IN_USE: dict[str, str] = {}
"""What else makes products in this process, by what it is: a backend adds itself when a network is built with it."""


def numerics() -> dict[str, str]:
    """Versions and hardware behind this process's arithmetic."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda or "none",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        **IN_USE,
    }
