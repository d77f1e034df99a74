"""`make verify-gpu-peers`: this engine beside other sparse libraries on one GPU; writes docs/verification/gpu-peers.json.

Forward + backward of the full network with new kernel maps, on the same voxels and weights. PEERS names the libraries and the
folders that `pip install --no-deps --target FOLDER` put them in, with what they need besides torch and numpy. Every library
and precision is measured in a process of its own, one after the other: spconv would reuse the kernels that it tuned for
another precision. Takes about five minutes.

    make verify-gpu-peers PEERS="spconv-cu126=FOLDER spconv-triton=FOLDER minkowski=FOLDER"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pretrain_bench.harness.store.machine import package_version
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from tests.performance.work import surface_voxels
from tests.verification import spconv_engine
from tests.verification.gpu import BACKENDS, FULL, SIZES, half, precision, step_speed
from tests.verification.report import ROOT, write_report

PEERS = ("spconv-cu126", "spconv-triton", "minkowski")
PRECISIONS = ("fp32", "tf32", "half")
"""`half` is bf16 here, and fp16 in spconv, which has no bf16. MinkowskiEngine computes in fp32 only."""
COMPARED_VOXELS, BOUND = 20_000, 1e-3
"""Outputs are compared with those of the backend `torch` in fp32, relative to the largest."""
WHAT = "forward + backward of Res16UNet34C on a GPU: this engine beside other sparse libraries"


def peers_of(words: list[str]) -> dict[str, Path]:
    """The folders of libraries given as NAME=FOLDER. Raises SystemExit for an unknown name or a missing folder."""
    found = {}
    for word in words:
        name, _, folder = word.partition("=")
        if name not in PEERS or not folder or not Path(folder).is_dir():
            sys.exit(f"{word}: expected NAME=FOLDER with an existing folder and a name of {', '.join(PEERS)}")
        found[name] = Path(folder)
    return found


@contextmanager
def at_precision(library: str, kind: str) -> Iterator[None]:
    """fp32 or TF32 of a library within the block, which holds whole steps."""
    with precision(kind):
        if library.startswith("spconv"):
            spconv_engine.library("constants").SPCONV_ALLOW_TF32 = kind == "tf32"
        yield


def autocast_of(library: str, kind: str, device: str) -> torch.autocast:
    """The autocast of a library's forward pass."""
    if library.startswith("spconv"):
        return torch.autocast(device, torch.float16, enabled=kind == "half")
    return half("bf16" if kind == "half" else kind, device)


def network_on(library: str) -> tuple[torch.nn.Module, Callable[..., Any]]:
    """The full network on a library, with weights that are equal for all, and the library's sparse tensor."""
    ours = seeded_backbone(20, FULL, 0.05, "torch", 1)  # type: ignore[arg-type]
    if library.startswith("spconv"):
        spconv_engine.use(library)
        return spconv_engine.on_spconv(ours, 20, FULL, 0.05), spconv_engine.SparseTensor
    network = seeded_backbone(20, FULL, 0.05, library, 1)  # type: ignore[arg-type]
    network.load_state_dict(ours.state_dict())
    return network, sparse_backend(library).SparseTensor


def difference(library: str, device: str, voxels: int = COMPARED_VOXELS) -> float:
    """The largest difference of outputs from those of the backend `torch`, in fp32."""
    coordinates, features = (t.to(device) for t in surface_voxels(voxels))
    outputs = []
    for name in ("torch", library):
        network, tensor = network_on(name)
        with at_precision(name, "fp32"), torch.no_grad():
            outputs.append(network.to(device).train()(tensor(features, coordinates)).F)
    return float((outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max())


def measured(library: str, kind: str) -> dict[str, Any]:
    """The version, and the times of one library and precision on the GPU; in fp32 also the difference."""
    found: dict[str, Any] = {
        "version": package_version("MinkowskiEngine" if library == "minkowski" else library),
        "torch": torch.__version__,
    }
    if kind == "fp32":
        found["difference"] = difference(library, "cuda")
    rows = found["rows"] = []
    for voxels in SIZES:
        row: dict[str, Any] = {"library": library, "precision": kind, "voxels": voxels}
        try:
            network, tensor = network_on(library)
            with at_precision(library, kind):
                row |= step_speed(network.train().cuda(), tensor, voxels, autocast_of(library, kind, "cuda"))
        except Exception as error:  # a limit of the library, or memory: the other sizes are still measured
            row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        torch.cuda.empty_cache()
    return found


def measured_apart(library: str, kind: str, folder: Path | None) -> dict[str, Any]:
    """The same in a process of its own, which finds the library in the folder; its exit code if it failed."""
    paths = [str(p) for p in (folder, ROOT, os.environ.get("PYTHONPATH")) if p]
    command = [sys.executable, "-m", "tests.verification.gpu_peers", "--measure", library, kind]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"failed": f"exit code {done.returncode}", "rows": []}
    return dict(json.loads(lines[-1]))


def fastest(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The fastest library of each precision and size."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        cell = f"{row['precision']}, {row['voxels']:,} voxels"
        if "milliseconds" in row and row["milliseconds"] <= best.get(cell, row)["milliseconds"]:
            best[cell] = row
    return {cell: row["library"] for cell, row in best.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure every library and write the report; returns 1 if one fails or differs by more than BOUND."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peers", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--measure", nargs=2, metavar=("LIBRARY", "PRECISION"), help="print measurements as JSON")
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measured(*options.measure)))
        return 0
    peers = peers_of(options.peers)
    if not (torch.cuda.is_available() and peers):
        why = "no library was given in PEERS" if torch.cuda.is_available() else "no CUDA device was at hand"
        write_report("gpu-peers", WHAT, "not run", why=why)
        return 0
    found = {
        f"{name}, {kind}": measured_apart(name, kind, peers.get(name))
        for name in (*BACKENDS, *peers)
        for kind in (PRECISIONS if name != "minkowski" else ("fp32",))
    }
    rows = [row for library in found.values() for row in library.pop("rows")]
    compared = [library.get("difference", 1.0) for name, library in found.items() if name.endswith(", fp32")]
    timed = {f"{row['library']}, {row['precision']}" for row in rows if "milliseconds" in row}
    good = all(apart <= BOUND for apart in compared) and timed == set(found)  # NaN is not within a bound
    write_report(
        "gpu-peers", WHAT, "ok" if good else "failed", gpu=torch.cuda.get_device_name(0), bound=BOUND, libraries=found,
        fastest=fastest(rows), speed=rows,
    )  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
