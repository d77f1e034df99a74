"""Input of an image build, for every builder."""

from __future__ import annotations

from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.executors.image_contents import Files


class ImageSource(NamedTuple):
    """The tag of an image, the files of its build context (with a Dockerfile), its build arguments and its labels."""

    tag: str
    files: Files
    arguments: dict[str, str]
    labels: dict[str, str]


class BuildFailed(BenchError):
    """A build failed or took too long."""


def too_long(seconds: float) -> BuildFailed:
    """The error for a build that exceeds its time limit."""
    return BuildFailed(f"the build took longer than {seconds:g} s")
