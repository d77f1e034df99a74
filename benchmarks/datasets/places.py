"""Identify scans of the same place: the unit in which pre-training can have seen test data (spec 5.2, 5.3).

A scan has one id in all layouts, so that frames, clouds and third-party exports of one dataset compare:
`scannet/scene0011_00`, `s3dis/Area_5/office_1`, `kitti/08/000123`, `sunrgbd/000123`. Names of real scans are recognised by their
form, whatever the name of the dataset that holds them; scans of a procedural dataset never match real ones.
"""

from __future__ import annotations

import re

_SCANNET = re.compile(r"scene\d{4}_\d{2}")
_S3DIS = re.compile(r"(Area_\d)[ab]?__(.+)")
_KITTI = re.compile(r"(\d{2})__(\d{6})")
_SEQUENCE = re.compile(r"(.+?)(?:__|[-_])seq-?\d+")


def room_of(scene: str) -> str:
    """The room of a ScanNet scan: `scene0011` of `scene0011_01`. Any other scene is returned unchanged."""
    return scene.partition("_")[0] if _SCANNET.fullmatch(scene) else scene


def scan_id(dataset: str, synthetic: bool, scene: str) -> str:
    """The id of a scan, the same in all layouts: `DATASET/...`."""
    if synthetic:
        return f"{dataset}/{scene}"
    if _SCANNET.fullmatch(scene):
        return f"scannet/{scene}"
    if match := _S3DIS.fullmatch(scene):
        return f"s3dis/{match[1]}/{match[2]}"
    if match := _KITTI.fullmatch(scene):
        return f"kitti/{match[1]}/{match[2]}"
    return f"{dataset}/{scene}"


def place_of(scan: str) -> str:
    """The place that a scan id belongs to: a ScanNet room, an S3DIS room, a KITTI sequence, or a recorded scene without its
    sequence number; otherwise the scan itself."""
    dataset, _, scene = scan.partition("/")
    if _SCANNET.fullmatch(scene):
        return f"{dataset}/{room_of(scene)}"
    if dataset == "kitti":
        return f"{dataset}/{scene.partition('/')[0]}"
    if match := _KITTI.fullmatch(scene):  # a procedural drive
        return f"{dataset}/{match[1]}"
    match = _SEQUENCE.fullmatch(scene)
    return f"{dataset}/{match[1]}" if match else scan
