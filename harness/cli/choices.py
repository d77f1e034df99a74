"""Choices of options, spelled out here so that `--help` and completion load no models; a test compares them with those."""

from __future__ import annotations

from typing import Literal

UpChoice = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]
World = Literal["nano", "smoke", "tiny", "full"]
Keep = Literal["none", "final", "best", "all"]
Checkpoint = Literal["final", "selected", "best"]
Exporter = Literal["tensorboard", "mlflow", "wandb"]
