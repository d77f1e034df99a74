"""Datasets: layout, classes, splits and source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pretrain_bench.benchmarks.specs.base import Name, Spec
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS, LayoutName, Provided
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.benchmarks.support.user_files import read_text

UpChoice = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]
"""Up axis of recordings, if their layout leaves it open."""
UP_CHOICES: tuple[UpChoice, ...] = get_args(UpChoice)


def up_choice(text: str) -> UpChoice:
    """Parse the axis given to `--up`. Raises WrongUse for anything else."""
    for choice in UP_CHOICES:
        if choice == text:
            return choice
    raise WrongUse(f"--up {text!r}: expected one of {', '.join(UP_CHOICES)}")


class PublishedSize(Spec):
    """Published size of a dataset, so that a plan can estimate work and disk without the data."""

    source: str = Field(description="source of these numbers")
    points: PositiveInt = Field(description="total over all scenes")
    frames: NonNegativeInt = Field(0, description="recorded frames, or pictures of single views")
    frame_bytes: NonNegativeInt = Field(0, description="bytes of one prepared frame: picture and depth image")
    scene_numbers: dict[str, PositiveInt] = Field(
        {}, description="number of scenes by prefix; their names are the prefix and six digits from 000000"
    )


class Camera(Spec):
    """A pinhole camera in pixels, for recordings without intrinsics; (0, 0) is the centre of the first pixel."""

    width: PositiveInt = Field(description="pixels")
    height: PositiveInt = Field(description="pixels")
    fx: PositiveFloat = Field(description="focal length along x, in pixels")
    fy: PositiveFloat = Field(description="focal length along y, in pixels")
    cx: float = Field(description="principal point along x, in pixels")
    cy: float = Field(description="principal point along y, in pixels")
    distortion: tuple[float, float, float, float, float] = Field(
        (0.0, 0.0, 0.0, 0.0, 0.0), description="k1 k2 p1 p2 k3 of the Brown model; frames are undistorted by it"
    )


class Sensor(Spec):
    """Camera, depth unit and up axis of recordings, if their layout leaves them open."""

    camera: Camera | None = Field(None, description="intrinsics of the depth images, instead of the layout's")
    depth_per_metre: PositiveFloat | None = Field(None, description="units of depth images per metre")
    up: UpChoice = Field("auto", description="up axis in the world of the poses; --up overrides it")


class Dataset(Spec):
    """One dataset: layout on disk, provided inputs, classes, and source."""

    name: Name = Field(description="name in commands and records")
    title: str = Field(description="name in tables and figures; your own dataset's defaults to its name")
    layout: LayoutName = Field(description="layout of the files, which selects the reader")
    synthetic: bool = Field(False, description="whether the data are generated")
    stand_in: Name | None = Field(None, description="the procedural dataset used if no data are configured")
    provides: tuple[Provided, ...] = Field(description="inputs that the data provide; defaults to those of the layout")
    classes: tuple[str, ...] = Field((), description="training classes, in the order of their ids")
    raw_classes: tuple[str, ...] = Field(
        (),
        description="class names that files may have; any other is an error, or unlabelled if this field is unset",
    )
    class_ids: tuple[NonNegativeInt, ...] = Field(
        (),
        description="raw label id of each class, in the order of `classes`; defaults to 0, 1, ...",
    )
    layout_classes: dict[LayoutName, tuple[str, ...]] = Field(
        {},
        description="classes by id in the files of another layout that numbers them differently",
    )
    sensor: Sensor = Sensor()
    box_classes: tuple[str, ...] = Field((), description="classes of the detection boxes, if other than `classes`")
    box_class_ids: tuple[NonNegativeInt, ...] = Field((), description="raw label id of each box class")
    stuff_classes: tuple[str, ...] = Field((), description="classes without instances (spec F.1)")
    box_mean_sizes_metres: tuple[tuple[PositiveFloat, PositiveFloat, PositiveFloat], ...] = Field(
        (), description="mean full size of each box class, from which detectors start (spec F.3)"
    )
    heading_bins: PositiveInt = Field(1, description="heading bins of detection boxes; 1 if they are axis-aligned")
    learning_map: dict[NonNegativeInt, NonNegativeInt] = Field(
        {}, description="raw label id to learning id; 0 is ignored and 1 is the first class"
    )
    train_scene_prefixes: tuple[str, ...] = Field(
        (), description="prefixes of training scenes; if given, no other scene trains"
    )
    test_scene_prefixes: tuple[str, ...] = Field((), description="prefixes of test scenes")
    test_scenes: tuple[str, ...] = Field(
        (), description="test scenes, or folders of them; or a text file with one per line"
    )
    train_scenes: tuple[str, ...] = Field(
        (), description="training scenes, written as `test_scenes`; if given, no other scene trains"
    )
    test_scenes_file: str | None = Field(
        None, description="official test list in benchmarks/configs/splits, in place of prefixes"
    )
    test_scene_numbers: dict[str, PositiveInt] = Field(
        {}, description="number of official test scenes named by a prefix and six digits, from 000000"
    )
    test_scene_count: PositiveInt | None = Field(
        None, description="number of official test scenes, where the layout itself names them"
    )
    train_scenes_file: str | None = Field(
        None, description="official training list in benchmarks/configs/splits (J-25)"
    )
    split_file: str | None = Field(
        None, description="the versioned split of all its scenes, in benchmarks/configs/splits"
    )
    ratio_order: Literal["hashed", "regular"] = Field(
        "hashed", description="how a label ratio picks scenes: at random, or at a regular stride (scans of a drive)"
    )
    frame_stride: PositiveInt | None = Field(
        None, description="overrides the profile's stride, for data whose frames are already selected"
    )
    source: str = Field(description="source of the data")
    licence: str = Field(description="the terms of the data")
    published: PublishedSize | None = Field(
        None, description="published size, for plans without the data", exclude=True
    )  # not dumped: it does not affect the prepared data or their folder
    worlds: dict[Name, dict[str, int]] = Field({}, description="seed and counts of each size of a procedural dataset")
    world: dict[str, int] | None = Field(None, description="the selected one of `worlds`; set by `sized`")

    def sized(self, world: str) -> Dataset:
        """A procedural dataset at one of its sizes; other datasets are returned unchanged. Raises WrongUse for an unknown
        size."""
        if not self.worlds:
            return self
        if world not in self.worlds:
            raise WrongUse(f"dataset {self.name!r} has no size {world!r}; it has {', '.join(self.worlds)}")
        return self.model_copy(update={"world": self.worlds[world], "worlds": {}})

    @field_validator("test_scenes", "train_scenes", mode="before")
    @classmethod
    def _read_list(cls, value: Any, info: ValidationInfo) -> Any:
        """Replace the name of a text file, relative to the spec that names it, by the file's lines."""
        if isinstance(value, str):
            path = (info.context or {}).get("folder", Path()) / value
            try:
                value = [line.strip() for line in read_text(path).splitlines() if line.strip()]
            except DataError as error:
                raise ValueError(str(error)) from None
        if not isinstance(value, list):
            return value
        if strange := [v for v in value if not isinstance(v, str)]:
            raise ValueError(f'{strange[0]!r} is not text; put names such as "08" in quotes')
        return [v.strip("/").replace("/", "__") for v in value]

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Derive fields that a short file omits from its name, layout and classes."""
        if not isinstance(data, dict) or not {"name", "layout"} <= data.keys():
            return data
        filled = {"title": data["name"], "source": "your own data", "licence": "not stated"} | data
        card = LAYOUTS.get(data["layout"])
        if card is not None:
            filled = {"provides": card.provides} | filled
        if data["layout"] == "semantickitti" and "class_ids" in data and "learning_map" not in data:
            filled["learning_map"] = {raw: place for place, raw in enumerate(data["class_ids"], start=1)}
        return filled

    @model_validator(mode="after")
    def _ids_fit(self) -> Dataset:
        if self.class_ids and len(self.class_ids) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes, but {len(self.class_ids)} class_ids")
        if len(self.box_class_ids) != len(self.box_classes):
            raise ValueError(f"{len(self.box_classes)} box_classes, but {len(self.box_class_ids)} box_class_ids")
        strange = set(self.stuff_classes) - set(self.classes)
        if strange:
            raise ValueError(f"stuff_classes names {sorted(strange)[0]!r}, which is not one of its classes")
        if self.box_mean_sizes_metres and len(self.box_mean_sizes_metres) != len(self.detected_classes):
            raise ValueError(
                f"{len(self.detected_classes)} classes of boxes, but {len(self.box_mean_sizes_metres)} box_mean_sizes_metres"
            )
        return self

    @property
    def detected_classes(self) -> tuple[str, ...]:
        """Classes of the detection boxes."""
        return self.box_classes or self.classes

    @property
    def thing_classes(self) -> tuple[str, ...]:
        """Classes with instances."""
        return tuple(c for c in self.classes if c not in self.stuff_classes)
