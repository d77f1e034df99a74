"""Methods: what each needs of its data, and its stages."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pretrain_bench.benchmarks.specs.base import Name, Share, Spec


class Needs(Spec):
    """What a method needs of its pre-training dataset; refused by name, before anything starts, where it is missing."""

    images: bool = False
    poses: bool = False
    multiple_views: bool = False
    labels: bool = False
    frames: bool = Field(False, description="RGB-D frames")
    clouds: bool = Field(False, description="point clouds of whole scenes")
    data: bool = Field(True, description="false for a method that reads no data at all")


class MethodStage(Spec):
    """One pre-training stage; `share` is its part of the budget's pretrain half."""

    name: Name
    share: Share
    title: str
    recipe: str | None = Field(None, description="the profile section that it reads, or tasks.NAME")


class Method(Spec):
    """A way to produce backbone weights."""

    name: Name
    title: str
    group: Literal["baseline", "single-scan", "multi-scan"]
    needs: Needs = Needs()
    stages: tuple[MethodStage, ...] = Field(min_length=1)
    image: str | None = Field(None, description="of a user's own method: the container image that runs its stages")
    settings: dict[str, bool | int | float | str] = Field({}, description="handed to the stages as they are")
    code_sha256: str | None = Field(None, description="filled in when a user's own method is loaded; never written")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = sum(s.share for s in self.stages)
        if self.needs.data and abs(total - 1.0) > 1e-9:
            raise ValueError(f"the shares of the stages must add up to 1, they add up to {total:g}")
        return self
