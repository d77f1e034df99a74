"""Methods: data requirements, stages, and appearance in reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pretrain_bench.benchmarks.specs.backbone_shapes import Input
from pretrain_bench.benchmarks.specs.base import Name, Share, Spec
from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.checkpoint import CheckpointFile

Group = Literal["baseline", "single-scan", "multi-scan", "imported"]
Origin = Literal["built-in", "imported", "package", "folder", "image"]
"""Origin of a method: this project, a user's checkpoint (run by this project's code), another installed package, a
user's folder, or a user's container image."""
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
LAST_PLACE = 1000


class Needs(Spec):
    """What a method needs of its pre-training dataset; a dataset that lacks any of it is refused by name before a run starts."""

    images: bool = Field(False, description="pictures")
    poses: bool = Field(False, description="camera poses")
    multiple_views: bool = Field(False, description="several views of one place")
    labels: bool = Field(False, description="class labels")
    frames: bool = Field(False, description="single frames: a picture and the points measured in it")
    clouds: bool = Field(False, description="point clouds of whole scenes")
    data: bool = Field(True, description="false for a method that reads no data at all")


class MethodStage(Spec):
    """One pre-training stage, with its share of the budget's pretrain half."""

    name: Name = Field(description="its file is NAME.py")
    share: Share = Field(description="of the budget's pretrain half")
    title: str = Field(description="name in reports")
    recipe: str | None = Field(
        None, description="a class in the folder's recipe.py, or tasks.NAME for a task's recipe; unset: no recipe"
    )
    from_task: tuple[str, ...] = Field(
        (), description="recipe fields that take the value of the task that the backbone is fine-tuned on"
    )
    imagenet_weights: bool = Field(False, description="whether it starts from ImageNet weights if given")
    checkpoint: bool = Field(False, description="whether it converts a user's checkpoint (--method NAME=FILE)")

    @model_validator(mode="after")
    def _a_recipe_to_fill(self) -> Self:
        if self.from_task and self.recipe is None:
            raise ValueError("from_task needs a recipe whose fields it names")
        return self


class MethodCard(Spec):
    """A method's appearance in reports. Stored in records, so that reports do not need the method's folder."""

    title: str
    group: Group
    colour: Colour | None = None
    place: int = Field(LAST_PLACE, ge=0, le=LAST_PLACE)
    uses_labels: bool = False
    origin: Origin = "built-in"


class MethodFile(Spec):
    """The content of `method.yaml`."""

    name: Name = Field(description="name in commands and records")
    title: str = Field(description="name in reports")
    group: Group = Field(description="methods of one group are adjacent in tables")
    colour: Colour | None = Field(None, description="colour in figures; chosen automatically if unset")
    place: int = Field(LAST_PLACE, ge=0, le=LAST_PLACE, description="sort key of rows in tables and legends")
    needs: Needs = Needs()
    input: Input = Field(
        "colour",
        description="what the network sees of a voxel while it is pre-trained, and in probes, where it is frozen: its colour, or "
        "ones (geometry). A fine-tuning of the whole network always sees colours",
    )
    stages: tuple[MethodStage, ...] = Field(min_length=1)
    image: str | None = Field(None, description="user's method: container image that runs its stages")
    settings: dict[str, bool | int | float | str] = Field({}, description="passed to the stages unchanged")
    pretrained_on: tuple[str, ...] | None = Field(
        None,
        description="scenes that the weights of a method were trained on before, such as scannet:train, "
        "s3dis/Area_5/* or published:csc; if unset, contamination is unknown unless the method reads data of its own",
    )
    currencies: tuple[Currency, ...] = Field(
        (Currency.optimizer_steps, Currency.samples_seen),
        min_length=1,
        description="currencies of budgets that its stages can keep; a budget in another one is refused",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if len({s.name for s in self.stages}) < len(self.stages):
            raise ValueError("two stages have the same name")
        total = sum(s.share for s in self.stages)
        if self.needs.data and abs(total - 1.0) > 1e-9:
            raise ValueError(f"the shares of the stages must add up to 1, but add up to {total:g}")
        return self


class Method(MethodFile):
    """A way to produce backbone weights: the content of its file, and its location."""

    origin: Origin = Field("built-in", description="where its code comes from")
    folder: Path | None = Field(None, description="folder of its files")
    code_sha256: str | None = Field(
        None, description="hash of code from outside this project; the planner hashes built-in code"
    )

    checkpoints: tuple[CheckpointFile, ...] = Field(
        (), description="imported method: the file for each pre-training seed, from 0"
    )

    @property
    def is_imported(self) -> bool:
        """Whether it is a user's checkpoint: its code ships with this project, and its budget is unknown."""
        return self.origin == "imported"

    @property
    def code_of(self) -> str:
        """The method of this project whose code it runs."""
        return self.folder.name if self.is_imported and self.folder is not None else self.name

    @property
    def is_own_python(self) -> bool:
        """Whether its code is Python from outside this project, which only the local executor can run."""
        return self.origin in ("package", "folder")

    @property
    def card(self) -> MethodCard:
        """Its appearance in reports."""
        return MethodCard(
            title=self.title, group=self.group, colour=self.colour, place=self.place,
            uses_labels=self.needs.labels, origin=self.origin,
        )  # fmt: skip
