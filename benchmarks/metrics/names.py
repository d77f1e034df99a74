"""Display names of metrics for tables, axes and the command line."""

from __future__ import annotations

CHECKPOINTS = ("final", "selected", "best")
"""Suffixes of metrics: scores of the last weights, of the best on held-out training scenes, of the best on the test split."""

TITLES = {
    "miou_voxel": "mIoU on voxels",
    "miou_point": "mIoU on points",
    "ap50": "AP50 of instances",
    "map50": "mAP50 of boxes",
}
"""Metrics that a task can use as its headline (`HeadlineMetric`)."""

SHOWN = {
    "semantic": {
        "miou_voxel": TITLES["miou_voxel"],
        "miou_point": TITLES["miou_point"],
        "accuracy_voxel": "accuracy",
    },
    "instance": {
        "ap50": TITLES["ap50"],
        "ap25": "AP25 of instances",
        "ap": "AP of instances, 50 to 90",
        "miou_voxel": TITLES["miou_voxel"],
        "accuracy_voxel": "accuracy",
    },
    "detection": {
        "map50": TITLES["map50"],
        "map25": "mAP25 of boxes",
        "recall50": "recall of boxes at 50",
        "recall25": "recall of boxes at 25",
    },
}
"""Metrics over all classes by kind of task, the most informative first."""

OVER_ALL = tuple(dict.fromkeys(name for shown in SHOWN.values() for name in shown))
"""All metrics over all classes."""
