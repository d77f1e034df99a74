"""Versions and processor name of this machine, for records and reports, from the standard library alone."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path


def package_version(package: str) -> str | None:
    """The installed version; None if the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def project_version() -> str:
    """The version of this project, as installed."""
    return package_version("pretrain-bench") or "not installed"


def cpu_name() -> str:
    """The processor's name as the kernel reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
