"""Label ratios, and cells: the points of the matrix."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, PositiveInt

from pretrain_bench.benchmarks.specs.base import Name, Seed, Spec
from pretrain_bench.benchmarks.specs.probes import FINETUNE, Protocol
from pretrain_bench.benchmarks.support.errors import WrongUse


class LabelRatio(Spec):
    """What labels may be used: a share of the training scenes in per cent, or a fixed number of points or boxes in each of
    them (the limited-annotation mode, spec C.2)."""

    percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    points: PositiveInt | None = Field(None, description="labelled points of each training scene; None: all")
    boxes: PositiveInt | None = Field(None, description="labelled boxes of each training scene; None: all")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read '5%' or '5', '20points', '2boxes'. A bare fraction such as '0.05' is refused, because it is ambiguous.

        Raises WrongUse with what is allowed.
        """
        limited = re.fullmatch(r"\s*([1-9]\d{0,5})\s*(point|box)(?:s|es)?\s*", text)
        if limited:
            return cls(**{"points" if limited.group(2) == "point" else "boxes": int(limited.group(1))})
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
        percent = float(match.group(1)) if match else -1.0
        if not match or not 1.0 <= percent <= 100.0:
            raise WrongUse(
                f"label ratio {text!r}: expected per cent of the training scenes from 1% to 100%, such as 5%, or labels of "
                "each scene, such as 20points or 2boxes"
            )
        return cls(percent=percent)

    def __str__(self) -> str:
        if self.points is not None:
            return f"{self.points}points"
        return f"{self.percent:g}%" if self.boxes is None else f"{self.boxes}boxes"


class Cell(Spec):
    """One point of the matrix, under one budget and profile."""

    method: Name
    pretrain_dataset: Name
    task: Name
    protocol: Protocol = Field(FINETUNE, exclude_if=lambda protocol: protocol == FINETUNE)
    label_ratio: LabelRatio = LabelRatio()
    pretrain_seed: Seed = 0
    finetune_seed: Seed = 0
    budget: Name
    profile: Name
