"""What a stage has around it: its folders, its task, its events, and its seeded random streams."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.loading import parse_spec
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE, EventWriter, Start, Warn
from pretrain_bench.harness.contract.run_length import RunLength, run_length
from pretrain_bench.harness.contract.stage import CHECKPOINT_FILE, STAGE_FILE, WEIGHTS_FILE, StageSpec

RecipeT = TypeVar("RecipeT", bound=Spec)

# Signals of a person and of the executor, as read by the training loop.
FINISH, CANCEL = "finish", "cancel"


class StageContext:
    """One running stage. `stop` is set by a signal: FINISH (the soft limit) or CANCEL."""

    def __init__(self, root: Path, spec: StageSpec) -> None:
        self.root, self.spec = root, spec
        self.out = root / "out"
        self.artifacts = self.out / "artifacts"
        # A stage writes all its artifacts at its end; whatever lies there now is of an attempt that was killed meanwhile.
        shutil.rmtree(self.artifacts, ignore_errors=True)
        self.artifacts.mkdir(parents=True)
        self.events = EventWriter(self.out / EVENTS_FILE)
        self.device = torch.device(spec.device)
        self.stop: str | None = None
        self.place = 0  # of the step under way on its schedule: the number of the step, where the budget counts steps
        self.notes: dict[str, str] = {}
        self.started = False
        self._early_warnings: list[str] = []

    @classmethod
    def open(cls, root: Path) -> StageContext:
        """Read `<root>/in/stage.json`. Raises WrongUse where it does not parse."""
        path = root / "in" / STAGE_FILE
        try:
            return cls(root, StageSpec.model_validate_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise WrongUse(f"{path}: not a stage of contract version 1: {error}") from None

    def recipe(self, model: type[RecipeT]) -> RecipeT:
        """The stage's recipe as its method's own model. Raises WrongUse where stage.json does not fit it."""
        return parse_spec(self.spec.recipe, model, f"{STAGE_FILE}: recipe")

    @property
    def view(self) -> Path:
        """The folder with this stage's view of its dataset."""
        assert self.spec.data is not None
        return self.root / "data" / self.spec.data.dataset

    @property
    def imagenet_weights(self) -> Path | None:
        """The weights file that the user named, if any."""
        return self.root / "in" / WEIGHTS_FILE if self.spec.imagenet_weights_sha256 else None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that the user named, if any."""
        return self.root / "in" / CHECKPOINT_FILE if self.spec.checkpoint else None

    def parent(self, stage: str) -> Path:
        """The artifacts of an earlier stage."""
        return self.root / "parents" / stage

    def seed(self, component: str, *numbers: int) -> int:
        """63-bit seed of one random stream: sha256 of (seed, stage, component, numbers)."""
        stage = f"{self.spec.method}/{self.spec.stage}" if self.spec.kind == "pretrain" else self.spec.kind
        return stream_seed(self.spec.seed, stage, component, *numbers)

    def rng(self, component: str, *numbers: int) -> np.random.Generator:
        """A numpy generator of one stream. Numbers (such as the step) make resuming exact without saved state."""
        return np.random.default_rng(self.seed(component, *numbers))

    def run_length(self, recipe_steps: int, samples_per_step: int) -> RunLength:
        """How long the stage trains; warns where the budget ends it before the recipe's steps."""
        limits = self.spec.limits
        length = run_length(limits, recipe_steps, samples_per_step)
        if length.steps < recipe_steps:
            self.warn(
                f"budget {limits.budget} allows {length.steps:,} of the {recipe_steps:,} steps of profile {self.spec.profile}"
            )
        return length

    def autocast(self) -> torch.autocast:
        """The precision of network passes that the profile asks for; losses are always computed in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")

    def start(self, event: Start) -> None:
        """Write the start event, and after it the warnings that came before."""
        self.events.write(event)
        self.started = True
        for message in self._early_warnings:
            self.warn(message)

    def warn(self, message: str) -> None:
        """Tell the reader of the result. Before the start it is kept back, since resuming cuts the event file."""
        if self.started:
            self.events.write(Warn(message=message))
        else:
            self._early_warnings.append(message)


def stream_seed(seed: int, stage: str, component: str, *numbers: int) -> int:
    """The seed of one random stream (docs/architecture.md#seeds)."""
    text = ":".join([str(seed), stage, component, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
