"""The context of a running stage: its folders, spec, events and seeded random streams."""

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

FINISH, CANCEL = "finish", "cancel"
"""Values of `StageContext.stop`: SIGTERM of the executor at the soft limit, and SIGINT of a user."""


class StageContext:
    """One running stage. A signal sets `stop` to FINISH (the soft limit) or CANCEL; until then it is None.

    Creating it empties `out/artifacts`.
    """

    def __init__(self, root: Path, spec: StageSpec) -> None:
        self.root, self.spec = root, spec
        self.out = root / "out"
        self.artifacts = self.out / "artifacts"
        # A stage writes its artifacts when it ends, so existing ones belong to an attempt that was killed while writing.
        shutil.rmtree(self.artifacts, ignore_errors=True)
        self.artifacts.mkdir(parents=True)
        self.events = EventWriter(self.out / EVENTS_FILE)
        self.device = torch.device(spec.device)
        self.stop: str | None = None
        self.place = 0  # of the current step on its schedule; equals the step number where the budget counts steps
        self.notes: dict[str, str] = {}
        self.started = False
        self._early_warnings: list[str] = []

    @classmethod
    def open(cls, root: Path) -> StageContext:
        """Read `<root>/in/stage.json`. Raises WrongUse if it is missing or invalid."""
        path = root / "in" / STAGE_FILE
        try:
            return cls(root, StageSpec.model_validate_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise WrongUse(f"{path}: not a stage of contract version 1: {error}") from None

    def recipe(self, model: type[RecipeT]) -> RecipeT:
        """The stage's recipe, validated as `model`. Raises WrongUse if stage.json does not fit it."""
        return parse_spec(self.spec.recipe, model, f"{STAGE_FILE}: recipe")

    @property
    def view(self) -> Path:
        """The folder with this stage's view of its dataset."""
        assert self.spec.data is not None
        return self.root / "data" / self.spec.data.dataset

    @property
    def imagenet_weights(self) -> Path | None:
        """The weights file given with `--imagenet-weights`, if any."""
        return self.root / "in" / WEIGHTS_FILE if self.spec.imagenet_weights_sha256 else None

    @property
    def checkpoint(self) -> Path | None:
        """The user's checkpoint that the method imports, if any."""
        return self.root / "in" / CHECKPOINT_FILE if self.spec.checkpoint else None

    def parent(self, stage: str) -> Path:
        """The folder with the artifacts of an earlier stage of this cell."""
        return self.root / "parents" / stage

    def seed(self, component: str, *numbers: int) -> int:
        """63-bit seed of one random stream: sha256 of (seed, stage, component, numbers)."""
        stage = f"{self.spec.method}/{self.spec.stage}" if self.spec.kind == "pretrain" else self.spec.kind
        return stream_seed(self.spec.seed, stage, component, *numbers)

    def rng(self, component: str, *numbers: int) -> np.random.Generator:
        """The numpy generator of one stream. With the step among `numbers`, resuming is exact without saved generator state."""
        return np.random.default_rng(self.seed(component, *numbers))

    def run_length(self, recipe_steps: int, samples_per_step: int) -> RunLength:
        """How long the stage trains. Warns if the budget allows fewer than `recipe_steps` steps."""
        limits = self.spec.limits
        length = run_length(limits, recipe_steps, samples_per_step)
        if length.steps < recipe_steps:
            self.warn(
                f"budget {limits.budget} allows {length.steps:,} of the {recipe_steps:,} steps of profile {self.spec.profile}"
            )
        return length

    def autocast(self) -> torch.autocast:
        """Autocast to the profile's precision (bf16, or off for fp32). For network passes only: losses stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")

    def start(self, event: Start) -> None:
        """Write the start event, then the warnings issued before it."""
        self.events.write(event)
        self.started = True
        for message in self._early_warnings:
            self.warn(message)

    def warn(self, message: str) -> None:
        """Record a warning in the event file; before `start` it is held back, since resuming truncates the file."""
        if self.started:
            self.events.write(Warn(message=message))
        else:
            self._early_warnings.append(message)


def stream_seed(seed: int, stage: str, component: str, *numbers: int) -> int:
    """63-bit seed of one random stream: the first 8 bytes of a sha256, without the lowest bit (docs/architecture.md#seeds)."""
    text = ":".join([str(seed), stage, component, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
