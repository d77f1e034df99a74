"""Lay out the folders that a stage reads and writes, as the container contract defines."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.files import size_and_sha256, symlink_or_copy
from pretrain_bench.benchmarks.support.reading import reading
from pretrain_bench.harness.contract.events import EVENTS_FILE, drop_end
from pretrain_bench.harness.contract.stage import (
    CHECKPOINT_FILE,
    LABEL_ROWS_FILE,
    METHOD_FOLDER,
    SHAPES_FILE,
    STAGE_FILE,
    WEIGHTS_FILE,
    StageSpec,
)
from pretrain_bench.harness.executors.output_folder import drop_special_files, plain_modes
from pretrain_bench.harness.planning.code_digest import code_hashes, digest_of_hashes, folder_files, folder_sha256
from pretrain_bench.harness.planning.stage_specs import PlannedStage

IN_CONTAINER = Path("/bench")
"""Path of a stage's folders inside a container."""


def lay_out(root: Path, planned: PlannedStage, parents: Mapping[str, Path], weights: Path | None) -> None:
    """Create the folders of a planned stage below `root`; `out/` keeps the state of an earlier attempt.

    `parents` maps earlier stages to the folders of their artifacts; `weights` is the file of ImageNet weights. Raises WrongUse
    if a user's method, or the file of an official label list, has changed meanwhile.
    """
    lay_out_folders(root, planned.spec, planned.data.folder if planned.data else None, parents, weights)
    if planned.checkpoint_file is not None:
        file = planned.checkpoint_file
        _link_unchanged(file.path, file.sha256, root / "in" / CHECKPOINT_FILE)
    if planned.label_file is not None:
        _copy_label_file(planned.label_file, root / "in" / LABEL_ROWS_FILE, planned.spec)
    if planned.method_folder is not None:
        _copy_method(planned.method_folder, root / "in" / METHOD_FOLDER, planned.method)


def unchanged_code(planned: PlannedStage) -> dict[str, str]:
    """Module or file to hash of the project's code that a stage runs; empty for code from outside the project, which `lay_out`
    checks. Raises EnvironmentCannot if it is not the code that the stage was planned with."""
    if planned.own_code:
        return {}
    spec = planned.spec
    hashes = code_hashes(spec.kind, spec.code_of, spec.part)
    here = digest_of_hashes(hashes)
    if here != spec.code_sha256:
        raise EnvironmentCannot(
            f"{planned.title}: {platform.node()} has different code from the command that planned the stage (digest {here[:12]}, "
            f"expected {spec.code_sha256[:12]}); it was edited meanwhile, or is another installation. Do not edit the code while "
            "stages wait, use one installation on all nodes, and give the same command again"
        )
    return hashes


def with_users_paths(
    text: str, root: Path, planned: PlannedStage, parents: Mapping[str, Path], weights: Path | None
) -> str:
    """Replace a stage's paths in its message by the files that they were laid out from: prepared data, earlier runs, weights.

    Other paths below `root` become relative to it, such as out/artifacts/x.
    """
    own = {f"parents/{stage}": folder for stage, folder in parents.items()}
    if planned.data is not None:
        own[f"data/{planned.data.dataset.name}"] = planned.data.folder
    if weights is not None:
        own[f"in/{WEIGHTS_FILE}"] = weights
    if planned.checkpoint_file is not None:
        own[f"in/{CHECKPOINT_FILE}"] = planned.checkpoint_file.path
    if planned.label_file is not None:
        own[f"in/{LABEL_ROWS_FILE}"] = planned.label_file
    if planned.method_folder is not None:
        own[f"in/{METHOD_FOLDER}"] = planned.method_folder
    users = {f"{base}/{place}": str(source) for place, source in own.items() for base in (root, IN_CONTAINER)}
    places = "|".join(re.escape(place) for place in sorted(users, key=len, reverse=True))
    if places:  # in one pass: a user's folder may be named like one of ours
        text = re.sub(rf"(?<![\w./-])(?:{places})(?![\w.-])", lambda match: users[match[0]], text)
    return text.replace(f"{root}/", "").replace(f"{root.parent}/", "").replace(str(root), "the stage's folder")


def _link_unchanged(file: Path, sha256: str, target: Path) -> None:
    """Link a user's file into the stage's folders. Raises WrongUse if it has changed since planning, or cannot be read."""
    with reading(file):
        found = size_and_sha256(file)[1]
    if found != sha256:
        raise WrongUse(f"{file}: changed since this command started; run it again")
    symlink_or_copy(file.resolve(), target)


def _copy_label_file(file: Path, target: Path, spec: StageSpec) -> None:
    """Copy the file of labelled rows. Raises WrongUse if it has changed since planning, or cannot be read."""
    with reading(file):
        content = file.read_bytes()
    target.write_bytes(content)
    if spec.label_ratio is None or size_and_sha256(target)[1] != spec.label_ratio.sha256:
        raise WrongUse(f"{file} changed since this command started; run it again")


def _copy_method(folder: Path, target: Path, method: Method) -> None:
    """Copy a user's method folder for the stage to import. Raises WrongUse if its code has changed since planning."""
    for name, path in folder_files(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    if folder_sha256(target) != method.code_sha256:
        raise WrongUse(f"method {method.name!r}: {folder} changed since this command started; run it again")


def lay_out_folders(
    root: Path, spec: StageSpec, data: Path | None, parents: Mapping[str, Path], weights: Path | None = None
) -> None:
    """Create the folders of a stage like `lay_out`, for a spec whose prepared data are in the folder `data`."""
    for name in ("in", "data", "parents"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    (root / "out").mkdir(exist_ok=True)
    plain_modes(root / "out")
    drop_special_files(root / "out")
    drop_end(root / "out" / EVENTS_FILE)
    (root / "in" / STAGE_FILE).write_text(json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True))
    if spec.kind == "pretrain":
        (root / "in" / SHAPES_FILE).write_text(json.dumps(backbone_shapes(spec.network), indent=1))
    if spec.imagenet_weights_sha256 is not None and weights is not None:
        _link_unchanged(weights, spec.imagenet_weights_sha256, root / "in" / WEIGHTS_FILE)
    if spec.data is not None and data is not None:
        view = root / "data" / spec.data.dataset
        view.mkdir()
        for part in ("unlabelled", "labelled") if spec.data.view == "labelled" else ("unlabelled",):
            symlink_or_copy((data / part).resolve(), view / part)
    for stage in spec.parents:
        symlink_or_copy(parents[stage].resolve(), root / "parents" / stage)
