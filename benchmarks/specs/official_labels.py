"""Label ratios that a benchmark defines by a list or rule: ScanNet's data-efficient lists, and every n-th scan of a drive.

Source (spec 4): the documentation of ScanNet's data-efficient benchmark; archives
`tasks/limited-reconstruction-scenes.zip` (scenes) and `tasks/limited-annotation-points.zip` (points) of
`download-scannet.py --data_efficient`; ContrastiveSceneContexts (boxes); SLidR (every hundredth scan).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "scannet-"
TASK_KINDS = ("semantic", "instance", "detection")


class OfficialLabels(NamedTuple):
    """One official choice of labels.

    `kinds`: the kinds of tasks it applies to. `number`: per cent of scenes, labelled points or boxes per scene, or the stride.
    `ships`: the list in benchmarks/configs/splits, None if the user supplies the file. `sha256`: of the distributed file, if
    known. `defined_on`: the number of scans that the stride covers.
    """

    name: str
    what: Literal["scenes", "points", "boxes", "stride"]
    number: int
    kinds: tuple[str, ...]
    words: str
    source: str
    ships: str | None = None
    sha256: str | None = None
    defined_on: int | None = None

    @property
    def needs_file(self) -> bool:
        """Whether the user has to supply the distributed file."""
        return self.what != "stride" and self.ships is None


_DATA_EFFICIENT = "download-scannet.py --data_efficient"
_SCENES_SHA256 = {
    1: "39ddd0db0617ae568a85ad7e211d2c39c6664172fa57ef0b4d840e0fa40e0489",
    5: "ff517b71ecca5e656c27d4cbc1c54c20f21a2a4034285ad0439d24702a9dae5a",
    10: "c9fa2e94a409ecd2252e8ac507a66aa829e1692b0268a031dfdaeac031f88006",
    20: "f266bc0897aff988d4005a2757314fcc19d7c0d13fd1cdaaff760a8d957482a9",
}
_POINTS_SHA256 = {
    20: "94bc2e6bd0f026274bf34d9cd7985c8abf612ddf90add68496e352329125e7ee",
    50: "31bcd0d62b7c8f4e8d4c6d4862669f5a756fc3daaefb6fe18127354f16eea71a",
    100: "6a94a1de770fca0b3c776578d9dad8fb4b3fc3bd0b36d70e220b824755040232",
    200: "9698687f4c2da20f395ec1ee4d2e16882c897a07b2198d5ec1e7b2807dc174f6",
}

_ALL = (
    *(
        OfficialLabels(
            f"{PREFIX}lr{n}", "scenes", n, ("semantic", "instance"),
            f"ScanNet's official list of {n} % of the scans", f"scenes/{n}.txt of {_DATA_EFFICIENT}",
            f"scannet_lr_{n}.txt", sha256,
        )
        for n, sha256 in _SCENES_SHA256.items()
    ),
    *(
        OfficialLabels(
            f"{PREFIX}la{n}", "points", n, ("semantic", "instance"),
            f"ScanNet's official {n} points of each scan", f"points{n} of {_DATA_EFFICIENT}", sha256=sha256,
        )
        for n, sha256 in _POINTS_SHA256.items()
    ),
    *(
        OfficialLabels(
            f"{PREFIX}lb{n}", "boxes", n, ("detection",),
            f"ScanNet's official {n} box{'es' * (n > 1)} of each scan",
            "the file of boxes of each scan in ScanNet's data-efficient benchmark",
        )
        for n in (1, 2, 4, 7)
    ),
    *(
        OfficialLabels(
            f"{PREFIX}det-lr{n}", "scenes", n, ("detection",),
            f"ScanNet's official list of {n} % of the scans for detection",
            "the list of scans for detection in ScanNet's data-efficient benchmark",
        )
        for n in (10, 20, 40, 80)
    ),
    OfficialLabels(
        "kitti-every100", "stride", 100, TASK_KINDS, "every 100th training scan, the usual 1 % of SemanticKITTI",
        "SLidR, downstream/dataloader_kitti.py", defined_on=19_130,
    ),
)  # fmt: skip

OFFICIAL: dict[str, OfficialLabels] = {one.name: one for one in _ALL}


def official_labels(text: str) -> OfficialLabels | None:
    """The official choice with this name, with or without the prefix `scannet-`; None for other names."""
    name = text.strip()
    return OFFICIAL.get(name) or OFFICIAL.get(f"{PREFIX}{name}")
