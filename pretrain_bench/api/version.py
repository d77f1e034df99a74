"""The version of this project, as installed."""

from __future__ import annotations

from pretrain_bench.harness.store.machine import project_version

__version__ = project_version()
