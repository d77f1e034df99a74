"""Scenes that published weights were pre-trained on, and the syntax in which a user states those of other weights.

An item is one of

    scannet:train  scannet:val  scannet:test   the official lists
    s3dis/Area_5/*                             scans by a pattern of their ids (`places.py`)
    scene0011_00  Area_5__office_1             a scan by its name
    rooms/Area_5/*  lab/f5__room_1             scans by the name of their dataset and scene, with / or __
    published:NAME                             the known scenes of published weights, listed below

prefixed with `labels:` if the weights were trained on the labels too (not allowed before `published:`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.places import scan_id
from pretrain_bench.benchmarks.datasets.splits import read_scene_list
from pretrain_bench.benchmarks.support.errors import WrongUse

LABELS, PUBLISHED_PREFIX = "labels:", "published:"
_TRAIN_AND_VAL = ("scannet:train", "scannet:val")
_ALL_OF_SCANNET = (*_TRAIN_AND_VAL, "scannet:test")
_FIRST_TEST_ROOM, _LAST_TEST_ROOM = 707, 806
"""First and last room of ScanNet's hundred test scans; each room from one to the other has one scan."""


class Published(NamedTuple):
    """Published weights: the scenes of their pre-training, as far as this project's tasks use them (none with labels), and the
    source of that statement."""

    title: str
    scenes: tuple[str, ...]
    source: str


PUBLISHED: dict[str, Published] = {
    "pointcontrast": Published(
        "PointContrast", _TRAIN_AND_VAL, "PointContrast@47e86828 pretrain/data_preprocess: every folder below scans/"
    ),
    "csc": Published(
        "ContrastiveSceneContexts", _TRAIN_AND_VAL,
        "ContrastiveSceneContexts@83515bef pretrain/scannet_pair/preprocess.sh:25: scans/scene*/*.sens",
    ),
    "depthcontrast": Published(
        "DepthContrast", _TRAIN_AND_VAL, "DepthContrast@b8257890 data/scannet/reader.py:30-31: everything below scans/"
    ),
    "msc": Published(
        "Masked Scene Contrast", _ALL_OF_SCANNET, "Pointcept@d74c646d pretrain-msc-v1m1-0-spunet-base.py:81"
    ),
    "sonata": Published(
        "Sonata", (*_ALL_OF_SCANNET, "s3dis/*"), "Pointcept@d74c646d pretrain-sonata-v1m1-0-base.py:192-251"
    ),
    "concerto": Published(
        "Concerto", (*_ALL_OF_SCANNET, "s3dis/*"), "Pointcept@d74c646d pretrain-concerto-v1m1-0-base.py:255-321"
    ),
    "utonia": Published(
        "Utonia", (*_ALL_OF_SCANNET, "s3dis/*", "kitti/*"),
        "Pointcept@d74c646d pretrain-utonia-v1m1-0-base_stagev1.py:516-553, _stagev2.py:867-1056",
    ),
}  # fmt: skip


def expand(items: Iterable[str]) -> tuple[str, ...]:
    """The stated items, with each `published:NAME` replaced by its scenes. Raises WrongUse for an item in no known form."""
    expanded: list[str] = []
    for item in items:
        name = item.removeprefix(PUBLISHED_PREFIX)
        if item.startswith(PUBLISHED_PREFIX):
            if name not in PUBLISHED:
                raise WrongUse(
                    f"pretrained_on {item!r}: unknown published weights; expected one of {', '.join(PUBLISHED)}"
                )
            expanded += PUBLISHED[name].scenes
            continue
        plain = item.removeprefix(LABELS)
        if scans_of(plain) is None and not re.fullmatch(r"[a-z0-9._-]+/[^\s:]+", plain):
            raise WrongUse(
                f"pretrained_on {item!r}: expected scannet:train, scannet:val, scannet:test, the name of a scan, a pattern of "
                "scans such as s3dis/Area_5/*, or published:NAME"
            )
        expanded.append(item)
    return tuple(dict.fromkeys(expanded))


def scans_of(item: str) -> frozenset[str] | None:
    """Scan ids of an official ScanNet list (`scannet:train`, `val`, `test`), or of a scan named directly; None for any other
    text."""
    if (scan := scan_id("", False, item)) != f"/{item}":
        return frozenset((scan,))
    if item == "scannet:test":
        return frozenset(f"scannet/scene{i:04d}_00" for i in range(_FIRST_TEST_ROOM, _LAST_TEST_ROOM + 1))
    if item in _TRAIN_AND_VAL:
        return frozenset(f"scannet/{s}" for s in read_scene_list(f"scannetv2_{item.partition(':')[2]}.txt"))
    return None
