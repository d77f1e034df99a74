"""`make verify-gpu`: the sparse engine on a GPU; writes docs/verification/gpu.json.

Needs only torch 2.6 or later and numpy: `python -m tests.verification.gpu`. For the backends `torch` and `triton`: golden
parity on the GPU; a table of forward + backward in fp32, tf32 and bf16 with peak memory (beside spconv if installed); a
training curve of 50 steps against the CPU's; whether `triton` is bit-identical when repeated; and the operations and
synchronisations of its kernel maps. Without a GPU the report says `not run`.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pretrain_bench.methods.networks.res16unet import Res16UNet34C, seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution
from pretrain_bench.methods.sparse.tensor import SparseTensor
from pretrain_bench.methods.training.numerics import numerics
from tests.parity.vectors import CONVOLUTIONS, case, formula_weights, load
from tests.performance.work import surface_voxels
from tests.verification.report import write_report

CLASSES, STEPS, REPEATS = 13, 50, 5
SIZES = (50_000, 200_000, 800_000)
PRECISIONS = ("fp32", "tf32", "bf16")
BACKENDS = ("torch", "triton")
BOUNDS = {"operations": 1e-6, "network": 1e-4, "curve": 0.05}
"""Bounds on relative differences: of float64 operations, the float32 network, and the mean loss of ten steps."""
TRITON_BOUNDS = {"operations": 1e-5, "network": 1e-4, "curve": 0.05}
"""The same bounds for `triton`, whose operations are in float32."""
FULL = SimpleNamespace(width=1.0, input_channels=3, first_kernel=3)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """fp32 or tf32 within the block, which holds a whole step: kernels read the flag when they are launched, backward too."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def half(name: str, device: str) -> torch.autocast:
    """bf16 by autocast within the block, which holds the forward pass, if that is the precision."""
    return torch.autocast(device, torch.bfloat16, enabled=name == "bf16")


def apart(found: torch.Tensor, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest magnitude."""
    return float(np.abs(found.detach().cpu().numpy() - expected).max() / np.abs(expected).max())


def operation_parity(device: str, backend: str = "torch") -> float:
    """Largest difference of outputs and gradients over the golden convolutions: `torch` in float64, `triton` in float32."""
    vectors, worst, engine = load("sparse_ops"), 0.0, sparse_backend(backend)
    dtype = torch.float64 if backend == "torch" else torch.float32
    for name, (size, stride, dilation) in CONVOLUTIONS.items():
        golden = case(vectors, name)
        layer = engine.MinkowskiConvolution(*golden["kernel"].shape[-2:], size, stride, dilation, "bias" in golden)
        layer.kernel.data = torch.from_numpy(golden["kernel"])
        if layer.bias is not None:
            layer.bias.data = torch.from_numpy(golden["bias"])
        features = torch.from_numpy(vectors["feats"]).to(dtype).to(device).requires_grad_()
        coordinates = torch.from_numpy(vectors["coords"]).int().to(device)
        out = layer.to(dtype).to(device)(engine.SparseTensor(features, coordinates))
        order = torch.from_numpy(np.lexsort(out.C.cpu().numpy().T[::-1]).copy()).to(device)
        (out.F[order] * torch.from_numpy(golden["loss_weight"]).to(device)).sum().backward()
        assert features.grad is not None and layer.kernel.grad is not None
        pairs = ((out.F[order], "out_feats"), (features.grad, "grad_feats"), (layer.kernel.grad, "grad_kernel"))
        worst = max(worst, *(apart(found, golden[key]) for found, key in pairs))
    return worst


def network_parity(device: str, backend: str = "torch") -> float:
    """Largest difference of the outputs of Res16UNet34C in training mode, float32 without TF32."""
    golden = load("backbone_small")
    network = Res16UNet34C(20, FULL, momentum=0.05, backend=backend)  # type: ignore[arg-type]
    network.load_state_dict(formula_weights(network))
    coordinates = torch.from_numpy(golden["small__coords"]).int().to(device)
    features = torch.from_numpy(golden["small__feats"]).float().to(device)
    with precision("fp32"), torch.no_grad():
        out = network.to(device).train()(sparse_backend(backend).SparseTensor(features, coordinates)).F
    rows = torch.from_numpy(golden["small__sample_rows"]).to(device)
    return apart(out[rows], golden["small__out20_train_sample"])


def curve(
    device: str, kind: str, voxels: int, steps: int = STEPS, backend: str = "torch", seed: int = 3
) -> list[float]:
    """Losses of a quarter-width network, with initial weights of a seed, that learns height classes of one room."""
    coordinates, features = (t.to(device) for t in surface_voxels(voxels, 0.1))
    settings: Any = SimpleNamespace(width=0.25, input_channels=3, first_kernel=3)
    network = seeded_backbone(CLASSES, settings, 0.05, backend, seed).train().to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-4)
    height = (coordinates[:, 3] - coordinates[:, 3].min()).long()
    labels = height * CLASSES // (height.max() + 1)
    losses = []
    for _ in range(steps):
        with precision(kind):
            with half(kind, device):
                out = network(sparse_backend(backend).SparseTensor(features, coordinates)).F
            loss = torch.nn.functional.cross_entropy(out.float(), labels)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [float(v) for v in losses]


def curve_difference(one: list[float], two: list[float]) -> float:
    """The largest difference between mean losses of ten steps."""
    tens = [np.asarray(c).reshape(-1, 10).mean(1) for c in (one, two)]
    return float(np.abs(tens[0] - tens[1]).max())


_room = cache(surface_voxels)


def timed(step: Callable[[], None]) -> dict[str, float]:
    """Milliseconds (median of REPEATS, after two warm-up steps) and peak MiB of a step on the GPU."""
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return {"milliseconds": float(np.median(times)), "peak_mib": torch.cuda.max_memory_allocated() / 2**20}


def network_speed(backend: str, kind: str, voxels: int) -> dict[str, float]:
    """Forward + backward of the full network, with new kernel maps."""
    network = seeded_backbone(20, FULL, 0.05, backend, 1).train().cuda()  # type: ignore[arg-type]
    with precision(kind):
        return step_speed(network, sparse_backend(backend).SparseTensor, voxels, half(kind, "cuda"))


def step_speed(
    network: torch.nn.Module, tensor: Callable[..., Any], voxels: int, autocast: torch.autocast
) -> dict[str, float]:
    """Forward, with this autocast, and backward of a network on sparse tensors of one engine."""
    coordinates, features = (t.cuda() for t in _room(voxels))
    labels = (torch.arange(voxels) % 20).cuda()

    def step() -> None:
        network.zero_grad()
        with autocast:
            out = network(tensor(features, coordinates)).F
        torch.nn.functional.cross_entropy(out.float(), labels).backward()

    return timed(step)


def layer_speed(library: str, kind: str, voxels: int, channels: int = 96) -> dict[str, float]:
    """Forward + backward of one 3x3x3 convolution with a new map, which can be compared with spconv."""
    coordinates = _room(voxels)[0].cuda()
    features = torch.randn(voxels, channels, device="cuda", requires_grad=True)
    if library == "spconv":
        import spconv.pytorch as spconv

        shifted = coordinates - coordinates.min(0).values
        shape = [int(v) + 1 for v in shifted.max(0).values[1:].tolist()]
        layer = spconv.SubMConv3d(channels, channels, 3, bias=False).cuda()

        def forward() -> torch.Tensor:
            return layer(spconv.SparseConvTensor(features, shifted, shape, 1)).features
    else:
        layer = MinkowskiConvolution(channels, channels, 3).cuda()

        def forward() -> torch.Tensor:
            return layer(SparseTensor(features, coordinates)).F

    def step() -> None:
        with half(kind, "cuda"):
            out = forward()
        out.float().sum().backward()

    with precision(kind):
        return timed(step)


def speeds() -> list[dict[str, Any]]:
    """The table of times; rows that exceed the GPU's memory state that."""
    spconv = importlib.util.find_spec("spconv") is not None
    rows = []
    for voxels in SIZES:
        for kind in PRECISIONS:
            works = [("network", backend, network_speed) for backend in BACKENDS]
            works.append(("layer", "torch", layer_speed))
            if spconv:
                works.append(("layer", "spconv", layer_speed))
            for what, library, measure in works:
                row: dict[str, Any] = {"work": what, "library": library, "precision": kind, "voxels": voxels}
                try:
                    row |= measure(library, kind, voxels)
                except torch.OutOfMemoryError:
                    row["failed"] = "out of GPU memory"
                torch.cuda.empty_cache()
                print(row, flush=True)
                rows.append(row)
    return rows


def kernel_map_calls(backend: str, voxels: int) -> dict[str, int]:
    """The operations and synchronisations of the kernel maps of one step on the GPU."""
    coordinates = _room(voxels)[0].cuda()

    def make() -> None:
        manager = sparse_backend(backend).SparseTensor.new_manager()
        manager.insert(1, coordinates)
        manager.kernel_map(1, 1, 3, 1).partners(voxels, voxels)
        for fine in (1, 2, 4, 8):
            coarse = manager.down(fine, 2)
            manager.kernel_map(fine, coarse, 2, 1)
            manager.kernel_map(coarse, coarse, 3, 1)

    make()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        make()
    events = profiled.events()
    return {
        "operations": sum(e.cpu_parent is None and e.name.startswith("aten::") for e in events),
        "synchronisations": sum(e.name in ("cudaStreamSynchronize", "cudaDeviceSynchronize") for e in events),
    }


def triton_report(cpu: list[float]) -> dict[str, Any]:
    """The numerics in a record of the backend `triton`, its differences, and whether it is bit-identical when repeated."""
    curves = {kind: curve("cuda", kind, 8000, backend="triton") for kind in PRECISIONS}
    return {
        "products": numerics()["sparse_products"],
        "parity": {
            "operations": operation_parity("cuda", "triton"),
            "network": network_parity("cuda", "triton"),
            "curve": curve_difference(cpu, curves["fp32"]),
        },
        "curve_differences": {kind: curve_difference(cpu, curves[kind]) for kind in PRECISIONS},
        "repeats": curves["bf16"] == curve("cuda", "bf16", 8000, backend="triton"),
    }


def main() -> int:
    """Verify on the GPU, or report `not run` without one; returns 1 if a difference exceeds its bound."""
    what = "the sparse engine on a GPU: golden parity, forward + backward, training curves against the CPU"
    if not torch.cuda.is_available():
        write_report("gpu", what, "not run", why="no CUDA device was at hand")
        return 0
    parity = {"operations": operation_parity("cuda"), "network": network_parity("cuda")}
    cpu = curve("cpu", "fp32", 8000)
    curves = {kind: curve("cuda", kind, 8000) for kind in PRECISIONS}
    parity["curve"] = curve_difference(cpu, curves["fp32"])
    triton = triton_report(cpu)
    good = all(parity[name] <= bound for name, bound in BOUNDS.items())
    good = good and triton["repeats"] and all(triton["parity"][n] <= bound for n, bound in TRITON_BOUNDS.items())
    write_report(
        "gpu",
        what,
        "ok" if good else "failed",
        gpu=torch.cuda.get_device_name(0),
        bounds=BOUNDS,
        parity=parity,
        curve_differences={kind: curve_difference(cpu, curves[kind]) for kind in PRECISIONS},
        triton=triton,
        triton_bounds=TRITON_BOUNDS,
        kernel_map_calls={backend: kernel_map_calls(backend, SIZES[0]) for backend in BACKENDS},
        speed=speeds(),
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
