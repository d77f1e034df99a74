"""The errors that the functions of the API raise, each with the exit code of the command line."""

from __future__ import annotations

from pretrain_bench.benchmarks.support.errors import BenchError, DataError, EnvironmentCannot, WrongUse

__all__ = ["BenchError", "DataError", "EnvironmentCannot", "WrongUse"]
