"""The verification of peers: the network on spconv is the same network, and the parts of the report that need no GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.verification import gpu, gpu_peers
from tests.verification.report import ROOT

NETWORKS = """
from types import SimpleNamespace
import torch
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.sparse.tensor import SparseTensor
from tests.performance.work import surface_voxels
from tests.verification import spconv_engine as peers

torch.set_num_threads(1)
settings = SimpleNamespace(width=0.25, input_channels=3, first_kernel=3)
coordinates, features = surface_voxels(3000, 0.1)
coordinates[:, 1:] -= 37
ours = seeded_backbone(20, settings, 0.05, "torch", 1).train()
theirs = peers.on_spconv(ours, 20, settings, 0.05).train()
with peers.allowed_on_a_cpu():
    outputs = [ours(SparseTensor(features, coordinates)).F, theirs(peers.SparseTensor(features, coordinates)).F]
    for out in outputs:
        out.square().mean().backward()
print(float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()))
gradients = [
    (one.kernel.grad, two.kernel_gradient())
    for (_, one), (_, two) in zip(peers.layers(ours), peers.layers(theirs), strict=True)
    if hasattr(one, "kernel")
]
assert len(gradients) > 40
print(max(float((one - two).abs().max() / one.abs().max()) for one, two in gradients))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("spconv") is None and not os.environ.get("BENCH_REQUIRE_SPCONV"),
    reason="needs spconv, which is not installed",
)
def test_the_network_on_spconv_is_the_same_network() -> None:
    """In one thread: with more, spconv's convolution has a race on a CPU."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", NETWORKS], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs, gradients = map(float, done.stdout.split())
    assert outputs <= 1e-5 and gradients <= 2e-4


def test_a_peer_is_a_known_name_with_a_folder(tmp_path: Path) -> None:
    assert gpu_peers.peers_of([f"spconv-triton={tmp_path}"]) == {"spconv-triton": tmp_path}
    for word in (f"torchsparse={tmp_path}", f"spconv-cu126={tmp_path / 'gone'}", "spconv-cu126"):
        with pytest.raises(SystemExit, match="expected NAME=FOLDER"):
            gpu_peers.peers_of([word])


def test_the_fastest_of_each_cell_is_named() -> None:
    rows = [
        {"library": name, "precision": "tf32", "voxels": 50_000, "milliseconds": ms}
        for name, ms in (("a", 2.0), ("b", 1.0))
    ]
    failed = {"library": "c", "precision": "tf32", "voxels": 50_000, "failed": "out of memory"}
    assert gpu_peers.fastest([*rows, failed]) == {"tf32, 50,000 voxels": "b"}


def test_a_library_that_cannot_be_measured_is_said_to_have_failed(tmp_path: Path) -> None:
    """Here every library fails: there is no GPU, or no such library in the folder."""
    found = gpu_peers.measured_apart("nonsense", "fp32", tmp_path)
    assert found == {"failed": "exit code 1", "rows": []}


def test_each_library_is_imported_by_its_own_name(tmp_path: Path) -> None:
    """spconv-triton is not a package `spconv`."""
    for name in ("spconv", "spconv_triton"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "constants.py").write_text(f"NAME = {name!r}")
    code = (
        "from tests.verification import spconv_engine as engine\n"
        "for name in ('spconv-cu126', 'spconv-triton'):\n"
        "    engine.use(name)\n"
        "    print(engine.library('constants').NAME)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["spconv", "spconv_triton"], done.stderr


def test_tf32_holds_in_the_backward_pass_too() -> None:
    seen = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cuda.matmul.allow_tf32)
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            seen.append(torch.backends.cuda.matmul.allow_tf32)
            return gradient

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(F=Seen.apply(x))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "timed", lambda step: step() or {})
        patch.setattr(
            gpu, "_room", lambda voxels: (torch.zeros(voxels, 4), torch.zeros(voxels, 20, requires_grad=True))
        )
        patch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
        for kind in gpu_peers.PRECISIONS:
            with gpu_peers.at_precision("torch", kind):
                gpu.step_speed(Network(), lambda features, coordinates: features, 40, gpu.half("fp32", "cpu"))
    assert seen == [False, False, True, True, False, False]


def test_outputs_are_compared_on_any_device() -> None:
    assert gpu_peers.difference("torch", "cpu", 200) == 0.0
