"""One measurement in a separate process: `python -m tests.performance.measure BACKEND WORK THREADS` prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import time

import torch

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse.backend import sparse_backend
from tests.performance.work import surface_voxels

WORKS = {"reference": (50_000, 0.05, 1.0), "reference-bf16": (50_000, 0.05, 1.0), "quarter": (5_000, 0.1, 0.25)}
CLASSES = 20
REPEATS = 6


def training_steps(backend: str, work: str) -> dict[str, float]:
    """Times of forward and forward + backward with new kernel maps each step: the minimum of REPEATS, after one warm-up."""
    voxels, metres, width = WORKS[work]
    coordinates, features = surface_voxels(voxels, metres)
    engine = sparse_backend(backend)
    network = Res16UNet34C(CLASSES, NetworkSettings(width=width), 0.05, backend).train()
    labels = torch.arange(voxels) % CLASSES
    best = {"forward_cpu": 1e9, "forward_wall": 1e9, "step_cpu": 1e9, "step_wall": 1e9}
    for repeat in range(REPEATS + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=work.endswith("bf16")):
            out = network(engine.SparseTensor(features, coordinates)).F
        middle = time.process_time() - cpu, time.perf_counter() - wall
        torch.nn.functional.cross_entropy(out.float(), labels).backward()
        after = time.process_time() - cpu, time.perf_counter() - wall
        if repeat:
            for name, value in zip(best, (*middle, *after), strict=True):
                best[name] = min(best[name], value)
    return best


def kernel_maps() -> dict[str, float]:
    """Seconds for all kernel maps of the network on the reference work, and the FLOPs of its forward pass."""
    from pretrain_bench.methods.flops import flops
    from pretrain_bench.methods.sparse.tensor import SparseTensor

    coordinates, features = surface_voxels(*WORKS["reference"][:2])
    seconds = 1e9
    for _ in range(REPEATS):
        began = time.perf_counter()
        manager, stride = SparseTensor(features, coordinates).coordinate_manager, 1
        manager.kernel_map(1, 1, 3, 1)
        while stride < 16:
            coarse = manager.down(stride, 2)
            manager.kernel_map(stride, coarse, 2, 1)
            manager.kernel_map(coarse, coarse, 3, 1)
            stride = coarse
        seconds = min(seconds, time.perf_counter() - began)
    flops.sparse_forward = 0
    with torch.no_grad():
        Res16UNet34C(CLASSES, NetworkSettings(), 0.05)(SparseTensor(features, coordinates))
    return {"maps_wall": seconds, "gflop": flops.sparse_forward / 1e9}


def gemm_rate() -> dict[str, float]:
    """The machine's fp32 GEMM rate in GFLOP per second and per CPU-second: the best of REPEATS products of 4096 x 4096 matrices."""
    one, two = torch.randn(4096, 4096), torch.randn(4096, 4096)
    wall_best = cpu_best = float("inf")
    for _ in range(REPEATS):
        cpu, wall = time.process_time(), time.perf_counter()
        one @ two
        wall_best = min(wall_best, time.perf_counter() - wall)
        cpu_best = min(cpu_best, time.process_time() - cpu)
    gflop = 2 * 4096**3 / 1e9
    return {"gflops": gflop / wall_best, "gflops_per_cpu_second": gflop / cpu_best}


def main() -> None:
    """Run the measurement named by the arguments."""
    backend, work, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    if work == "gemm":
        result = gemm_rate()
    elif work == "maps":
        result = kernel_maps()
    else:
        result = training_steps(backend, work)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
