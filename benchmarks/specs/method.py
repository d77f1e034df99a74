"""Methods: data requirements, stages, and appearance in reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
    """What a method needs of its pre-training dataset; refused by name, before anything starts, where it is missing."""

    images: bool = Field(False, description="pictures")
    poses: bool = Field(False, description="poses of the camera")
    multiple_views: bool = Field(False, description="several views of one place")
    labels: bool = Field(False, description="class labels")
    frames: bool = Field(False, description="single frames: a picture and the points that were measured in it")
    clouds: bool = Field(False, description="point clouds of whole scenes")
    data: bool = Field(True, description="false for a method that reads no data at all")


class MethodStage(Spec):
    """One pre-training stage; `share` is its part of the budget's pretrain half."""

    name: Name = Field(description="its file is NAME.py")
    share: Share = Field(description="of the budget's pretrain half")
    title: str = Field(description="as reports print it")
    recipe: str | None = Field(
        None, description="a class of the folder's recipe.py, or tasks.NAME for the recipe of a task; none: no recipe"
    )
    from_task: tuple[str, ...] = Field(
        (), description="fields of the recipe that take the value of the task that the backbone is fine-tuned on"
    )
    imagenet_weights: bool = Field(False, description="whether it starts from ImageNet weights where they are given")
    checkpoint: bool = Field(False, description="whether it converts a checkpoint of the user's (--method NAME=FILE)")

    @model_validator(mode="after")
    def _a_recipe_to_fill(self) -> Self:
        if self.from_task and self.recipe is None:
            raise ValueError("from_task needs a recipe whose fields it names")
        return self


class MethodCard(Spec):
    """How a method appears in reports. A record keeps it, so that a report needs no method folder."""

    title: str
    group: Group
    colour: Colour | None = None
    place: int = Field(LAST_PLACE, ge=0, le=LAST_PLACE)
    uses_labels: bool = False
    origin: Origin = "built-in"


class MethodFile(Spec):
    """The content of `method.yaml`."""

    name: Name = Field(description="name in commands and records")
    title: str = Field(description="as reports print it")
    group: Group = Field(description="of methods that tables put together")
    colour: Colour | None = Field(None, description="in figures; one is chosen where there is none")
    place: int = Field(LAST_PLACE, ge=0, le=LAST_PLACE, description="rows of tables and legends are sorted by it")
    needs: Needs = Needs()
    stages: tuple[MethodStage, ...] = Field(min_length=1)
    image: str | None = Field(None, description="of a user's own method: the container image that runs its stages")
    settings: dict[str, bool | int | float | str] = Field({}, description="handed to the stages as they are")
    pretrained_on: tuple[str, ...] | None = Field(
        None,
        description="of a method that brings weights along: the scenes they were trained on, such as scannet:train, "
        "s3dis/Area_5/* or published:csc; unset, its contamination is unknown where it reads no data of its own",
    )
    currencies: tuple[Currency, ...] = Field(
        (Currency.optimizer_steps, Currency.samples_seen),
        min_length=1,
        description="of budgets that its stages keep; a budget in another one is refused",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if len({s.name for s in self.stages}) < len(self.stages):
            raise ValueError("two stages of one name")
        total = sum(s.share for s in self.stages)
        if self.needs.data and abs(total - 1.0) > 1e-9:
            raise ValueError(f"the shares of the stages must add up to 1, they add up to {total:g}")
        return self


class Method(MethodFile):
    """A way to produce backbone weights: its file, and where it was found."""

    origin: Origin = Field("built-in", description="where its code comes from")
    folder: Path | None = Field(None, description="where its files are")
    code_sha256: str | None = Field(
        None, description="of code from outside this project; the planner hashes built-in code"
    )

    checkpoints: tuple[CheckpointFile, ...] = Field(
        (), description="of an imported method: the file of each pre-training seed, from 0"
    )

    @property
    def is_imported(self) -> bool:
        """Whether it is a checkpoint of the user's: its code ships, and its budget is unknown."""
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
        """How it appears in reports."""
        return MethodCard(
            title=self.title, group=self.group, colour=self.colour, place=self.place,
            uses_labels=self.needs.labels, origin=self.origin,
        )  # fmt: skip
