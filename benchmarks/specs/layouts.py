"""The supported layouts on disk: their contents, what they lack, and the datasets that use them."""

from __future__ import annotations

from typing import Literal, NamedTuple

LayoutName = Literal[
    "s3dis",
    "rgbd-folder",
    "scannet",
    "semantickitti",
    "sunrgbd",
    "pointcept",
    "scannet-frames-25k",
    "7-scenes",
    "tum",
    "stanford-indoor3d",
    "open3d",
    "replica",
    "arkitscenes",
    "votenet",
    "mmdetection3d",
]
Provided = Literal["frames", "images", "poses", "multiple_views", "clouds", "labels", "boxes"]


class LayoutCard(NamedTuple):
    """Properties of a layout: what its data provide (`provides`) and lack (text that ends a sentence), the official layouts of
    datasets that it can replace (`stands_for`), and whether it leaves the up direction undefined (`up_is_open`)."""

    title: str
    provides: tuple[Provided, ...]
    lacks: str = ""
    stands_for: tuple[LayoutName, ...] = ()
    up_is_open: bool = False


_RECORDING: tuple[Provided, ...] = ("frames", "images", "poses", "multiple_views")
_LABELLED: tuple[Provided, ...] = ("clouds", "labels")
_FOLDER: tuple[LayoutName, ...] = ("rgbd-folder",)

LAYOUTS: dict[LayoutName, LayoutCard] = {
    "s3dis": LayoutCard("S3DIS text files", _LABELLED),
    "scannet": LayoutCard("ScanNet v2 scans", (*_RECORDING, *_LABELLED, "boxes")),
    "semantickitti": LayoutCard("SemanticKITTI sequences", ("frames", "images", *_LABELLED)),
    "sunrgbd": LayoutCard("SUN RGB-D views", ("frames", "images", "clouds", "boxes")),
    "rgbd-folder": LayoutCard("a folder of RGB-D frames", _RECORDING, up_is_open=True),
    "pointcept": LayoutCard(
        "Pointcept's preprocessed arrays",
        _LABELLED,
        "no frames, so it serves fine-tuning and pre-training on clouds only; no axis alignment, so no detection",
        ("scannet", "s3dis"),
    ),
    "scannet-frames-25k": LayoutCard(
        "scannet_frames_25k",
        _RECORDING,
        "no meshes, so it serves pre-training only; its frames are 100 apart, so few pairs overlap",
        ("scannet", "rgbd-folder"),
    ),
    "7-scenes": LayoutCard(
        "7-Scenes as distributed",
        _RECORDING,
        "no intrinsics, so the published ones are used; colour and depth are registered approximately",
        _FOLDER,
        up_is_open=True,
    ),
    "tum": LayoutCard("TUM RGB-D", _RECORDING, "", _FOLDER, up_is_open=True),
    "stanford-indoor3d": LayoutCard(
        "stanford_indoor3d arrays",
        _LABELLED,
        "no frames, and no instances, so it serves semantic segmentation only; rooms are moved to the origin",
        ("s3dis",),
    ),
    "open3d": LayoutCard(
        "Open3D or Redwood recordings",
        _RECORDING,
        "no depth unit, so 1/1000 m is used unless sensor.depth_per_metre says another; which way is up",
        _FOLDER,
        up_is_open=True,
    ),
    "replica": LayoutCard("Replica as rendered for iMAP and NICE-SLAM", _RECORDING, "", _FOLDER, up_is_open=True),
    "arkitscenes": LayoutCard(
        "ARKitScenes", _RECORDING, "boxes are not read, so it serves pre-training only", _FOLDER, up_is_open=True
    ),
    "votenet": LayoutCard(
        "VoteNet's dumps",
        ("clouds", "labels", "boxes"),
        "no frames, so it serves fine-tuning and pre-training on clouds only; at most 50,000 points of a scene",
        ("scannet", "sunrgbd"),
    ),
    "mmdetection3d": LayoutCard(
        "MMDetection3D's arrays",
        ("clouds", "labels", "boxes"),
        "no frames with depth, so it serves fine-tuning and pre-training on clouds only; no pickle is read",
        ("scannet", "s3dis"),
    ),
}
