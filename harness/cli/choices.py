"""Choices and defaults of options, repeated here so that `--help` and completion load no models; a test compares them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

UpChoice = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]
World = Literal["nano", "smoke", "tiny", "study", "full"]
FRAME_STRIDE = 50
Keep = Literal["none", "final", "best", "all"]
Figures = Literal["screen", "paper"]
Checkpoint = Literal["final", "selected", "best"]


class Exporter(StrEnum):
    """Programs that take curves; an enum, because Typer takes no list of literals."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"
