"""Label ratios, and cells: the points of the matrix."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, PositiveInt

from pretrain_bench.benchmarks.specs.base import Name, Seed, Sha256, Spec, is_none
from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL, OfficialLabels, official_labels
from pretrain_bench.benchmarks.specs.probes import FINETUNE, Protocol
from pretrain_bench.benchmarks.support.errors import WrongUse


class LabelRatio(Spec):
    """The usable labels: a percentage of the training scenes, a fixed number of points or boxes in each of them (the
    limited-annotation mode, spec C.2), or a benchmark's official choice (`official`)."""

    percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    points: PositiveInt | None = Field(None, description="labelled points of each training scene; None: all")
    boxes: PositiveInt | None = Field(None, description="labelled boxes of each training scene; None: all")
    official: Name | None = Field(
        None, exclude_if=is_none, description="the benchmark's own list or rule that chooses them, such as scannet-lr20"
    )
    sha256: Sha256 | None = Field(None, exclude_if=is_none, description="hash of the file with the official choice")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read '5%' or '5', a fraction such as '0.05', '20points', '2boxes', or the name of an official list such as
        'scannet-lr20' or 'la20'. '1.0' is refused: it may mean 1% or all.

        Raises WrongUse listing the accepted forms.
        """
        if listed := official_labels(text):
            labels = {listed.what: listed.number} if listed.what in ("points", "boxes") else {}
            return cls(**labels, official=listed.name, sha256=listed.sha256 if listed.ships else None)
        limited = re.fullmatch(r"\s*([1-9]\d{0,5})\s*(point|box)(?:s|es)?\s*", text)
        if limited:
            return cls(**{"points" if limited.group(2) == "point" else "boxes": int(limited.group(1))})
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        percent = float(match.group(1)) if match else -1.0
        if match and not match.group(2) and "." in match.group(1) and percent <= 1:
            percent = round(100 * percent, 10) if percent < 1 else -1.0
        if not match or not 1.0 <= percent <= 100.0:
            raise WrongUse(
                f"label ratio {text!r}: expected per cent of the training scenes from 1% to 100%, such as 5% or 0.05, or labels "
                f"of each scene, such as 20points or 2boxes, or an official list: {', '.join(OFFICIAL)}"
            )
        return cls(percent=percent)

    @property
    def listed(self) -> OfficialLabels | None:
        """The official choice. Raises WrongUse for one that this version does not know."""
        if self.official is None:
            return None
        if self.official not in OFFICIAL:
            raise WrongUse(
                f"label ratio {self.official!r}: not one of {', '.join(OFFICIAL)}; a newer version may know it"
            )
        return OFFICIAL[self.official]

    @property
    def words(self) -> str:
        """The ratio as words, see `label_words`."""
        return label_words(str(self))

    @property
    def is_of_scenes(self) -> bool:
        """Whether it selects scenes with all their labels, rather than points or boxes in every scene."""
        return self.points is None and self.boxes is None

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the training scenes under this project's nested rule."""
        return self.is_of_scenes and self.official is None

    def __str__(self) -> str:
        if self.official is not None:
            return self.official
        if self.points is not None:
            return f"{self.points}points"
        return f"{self.percent:g}%" if self.boxes is None else f"{self.boxes}boxes"


def label_words(ratio: str) -> str:
    """A label ratio as words: `5% of the labels`, `ScanNet's official list of 20 % of the scans (scannet-lr20)`."""
    return f"{OFFICIAL[ratio].words} ({ratio})" if ratio in OFFICIAL else f"{ratio} of the labels"


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
