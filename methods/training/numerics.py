"""The numerics fingerprint: besides the key, it decides whether two runs are bit-identical."""

from __future__ import annotations

import torch

IN_USE: dict[str, str] = {}
"""Other libraries that compute in this process, by role; a backend adds its entry when a network is built with it."""


def numerics() -> dict[str, str]:
    """Versions and hardware on which the arithmetic of this process depends."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda or "none",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        **IN_USE,
    }
