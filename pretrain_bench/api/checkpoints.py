"""Import of checkpoints and export of backbones.

Conversions run in a process of their own, like all code of `methods`: the harness does not load torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pretrain_bench.api.runs import Run, as_run
from pretrain_bench.api.stores import AnyPath, Runs
from pretrain_bench.benchmarks.specs.backbone_shapes import ENCODER_MODULES
from pretrain_bench.benchmarks.specs.checkpoint import ORIGINS, ExportFormat
from pretrain_bench.benchmarks.specs.probes import PROTOCOLS, DecoderProbe, LinearProbe
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.code_digest import package_folder
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite
from pretrain_bench.harness.store.store import ARTIFACTS

FORMATS = get_args(ExportFormat)
BACKBONE = "backbone.safetensors"


class ImportedCheckpoint(BaseModel):
    """How a checkpoint was converted, in tensors of the backbone."""

    transferred: int
    expected: int
    place: str
    """Keys and prefix of the network in the file, such as `state_dict.module.`."""
    kernel_order: str
    permuted: int
    """Kernels whose layout or order was changed."""
    missing: list[str]
    reshaped: list[str]
    """Tensors of another shape."""
    dropped: list[str]
    """Tensors of the checkpoint that the backbone does not have."""


class ExportedCheckpoint(BaseModel):
    """How a backbone was exported, in tensors."""

    written: int
    left_out: list[str]
    """Tensors without a place in the other network, each with the reason."""


def import_checkpoint(
    file: AnyPath,
    *,
    origin: str | None = None,
    out: AnyPath = BACKBONE,
    partial: bool = False,
    prefix: str | None = None,
    profile: AnyPath = "headline",
) -> ImportedCheckpoint:
    """Convert a checkpoint to this project's backbone, written to `out`, which `mine=OUT` runs as a method.

    Args:
        file: the checkpoint; only tensors are loaded. Its network is found by the names and shapes of its tensors.
        origin: its origin, which determines the order of its kernels: pointcontrast, csc, csc-votenet, depthcontrast,
            minkowski-0.4, minkowski-0.5, spconv, spconv-zyx or bench. Optional if the file itself shows the order.
        out: the file to write; its folder is made where it is missing.
        partial: accept missing tensors and tensors of another shape.
        prefix: keys and prefix of the network, such as `state_dict.module.`, if several in the file fit.
        profile: the profile whose network it has to fit, by name or path.

    Raises WrongUse for a file that cannot be read or does not fit, and where `out` is a folder; EnvironmentCannot where it cannot
    be written.
    """
    if origin is not None and origin not in ORIGINS:
        raise WrongUse(f"--origin {origin!r}: expected one of {', '.join(ORIGINS)}")
    network = find(Profile, profile).network.model_dump(mode="json")
    request = {
        "path": os.fspath(file), "network": network, "origin": origin, "prefix": prefix, "partial": partial,
        "profiles": _networks(),
    }  # fmt: skip
    return ImportedCheckpoint(**_run({"kind": "import", "request": request, "out": str(_file_to_write(out, BACKBONE))}))


def export_checkpoint(
    run: Run | str, *, format: str, out: AnyPath, runs: Runs = "runs", partial: bool = False
) -> ExportedCheckpoint:
    """Write the backbone of a pre-training run in the layout of another project.

    Args:
        run: a pre-training run, imported ones included: a `Run`, or the beginning of its key in `runs`.
        format: minkowski-0.5, minkowski-0.4 (another order of kernels), spconv (its weights, names without `.bn`) or pointcept
            (names and weights of its SpUNet, as `state_dict` of a segmentation network).
        out: the file to write; safetensors where its name ends so, else a PyTorch file with the key `state_dict`.
        runs: the folder of runs.
        partial: leave out tensors that have no place in SpUNet.

    Raises WrongUse for a run without a backbone, an unknown format, or tensors without a place, naming them; EnvironmentCannot
    where `out` cannot be written.
    """
    if format not in FORMATS:
        raise WrongUse(f"--format {format!r}: expected one of {', '.join(FORMATS)}")
    run = as_run(run, runs)
    spec, record = run.spec, run.record
    backbone = run.folder / ARTIFACTS / BACKBONE
    if spec.kind != "pretrain":
        parents = ", ".join(record.parents.values())
        raise WrongUse(
            f"run {spec.key} is a fine-tuning, which keeps predictions only; export its pre-training, {parents}"
        )
    if not backbone.is_file():
        raise WrongUse(f"run {spec.key} ({record.method}/{record.stage}, {record.outcome.value}) left no {BACKBONE}")
    command = {
        "kind": "export", "backbone": str(backbone), "network": spec.network.model_dump(mode="json"), "format": format,
        "out": str(_file_to_write(out, f"{record.method}.pth")), "partial": partial,
    }  # fmt: skip
    return ExportedCheckpoint(**_run(command))


def check_checkpoints(resolved: ResolvedSuite) -> None:
    """Read the imported checkpoints of a suite as their stages will.

    Raises WrongUse for one that does not fit the profile, and for one that lacks tensors which a protocol would keep frozen:
    a probe would judge random weights.
    """
    named = [(method, file) for method in resolved.methods.values() for file in method.checkpoints]
    files = [file for _, file in named]
    if not files:
        return
    network, profiles = resolved.profile.network.model_dump(mode="json"), _networks()
    requests = [{"path": str(f.path), "network": network, "origin": f.origin, "profiles": profiles} for f in files]
    drawn = _run({"kind": "check", "requests": requests})["drawn"]
    protocols = {(cell.method, cell.protocol) for cell in resolved.cells()}
    for (method, file), lacking in zip(named, drawn, strict=True):
        for protocol in (p for p in PROTOCOLS if (method.name, p) in protocols):
            _check_frozen(f"method {method.name!r} ({file.path})", resolved.profile.probes.of(protocol), lacking)


def _check_frozen(named: str, probe: LinearProbe | DecoderProbe | None, lacking: list[str]) -> None:
    """Raises WrongUse where a probe keeps tensors frozen that a file lacks."""
    if probe is None:
        return
    encoder = [name for name in lacking if name.partition(".")[0] in ENCODER_MODULES]
    frozen = lacking if probe.uses_decoder else encoder
    if frozen:
        decoder = "" if encoder else "--protocol decoder with `start: reset`, "
        raise WrongUse(
            f"{named}: protocol {probe.title!r} judges {'the whole backbone' if probe.uses_decoder else 'its encoder'}, but "
            f"{len(frozen)} of its tensors are not in the file and would be random, first {frozen[0]}; use {decoder}--protocol "
            "finetune, or a file with the whole backbone"
        )


def _networks() -> dict[str, Any]:
    """The networks of the shipped profiles."""
    return {name: find(Profile, name).network.model_dump(mode="json") for name in available(Profile)}


def _file_to_write(out: AnyPath, name: str) -> Path:
    if Path(out).is_dir():
        raise WrongUse(f"--out {out}: a folder; name the file to write, such as {Path(out) / name}")
    return Path(out)


def _run(command: dict[str, Any]) -> dict[str, Any]:
    line = [sys.executable, "-P", "-m", "pretrain_bench.methods.imported.command", json.dumps(command)]
    environment = {"PYTHONPATH": str(package_folder().parent)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the conversion failed"]
        raise (EnvironmentCannot if done.returncode == EnvironmentCannot.exit_code else WrongUse)(lines[-1])
    result: dict[str, Any] = json.loads(done.stdout)
    return result
