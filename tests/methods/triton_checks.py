"""The Triton kernels without a GPU: `python -m tests.methods.triton_checks interpret|compile`, prints JSON.

interpret: convolutions in Triton's interpreter (TRITON_INTERPRET=1) against torch's product; largest differences, relative to the
largest magnitude. compile: registers and spilled bytes from ptxas, for all tile sizes on three GPUs in float32, on one in bfloat16.
It needs a process of its own, since Triton decides on import whether it interprets.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pretrain_bench.methods.sparse import implicit_gemm, tiles
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates

SEED = 31
LAYERS = (
    ("same", 3, 20, 3, 1),
    ("same", 32, 96, 3, 1),
    ("same", 40, 130, 3, 1),
    ("down", 24, 33, 2, 2),
    ("up", 64, 24, 2, 2),
)
"""Kind, channels in and out, kernel size and stride: channels that are not a power of two, tiles with masks on every
side."""
ARCHITECTURES = (80, 90, 100)
POINTERS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def interpreted() -> dict[str, float]:
    """Largest difference of outputs and gradients of each layer, by dtype. bf16 is omitted: Triton's interpreter computes it wrongly."""
    assert implicit_gemm.is_interpreting()
    rng = np.random.default_rng(SEED)
    clouds = [rng.permutation(np.unique(rng.integers(-4, 4, (90, 3)), axis=0)) for _ in range(2)]
    coordinates = batched_coordinates([torch.from_numpy(c) for c in clouds])
    worst = {}
    for dtype in (torch.float32, torch.float16):
        for number, (kind, c_in, c_out, size, stride) in enumerate(LAYERS):
            outputs = []
            for backend in ("torch", "triton"):
                torch.manual_seed(SEED + number)
                engine = sparse_backend(backend)
                layer = engine.MinkowskiConvolution(c_in, c_out, kernel_size=size, stride=stride)
                back = engine.MinkowskiConvolutionTranspose(c_out, c_in, kernel_size=size, stride=stride)
                features = torch.randn(len(coordinates), c_in).to(dtype).requires_grad_()
                weights = [w.requires_grad_() for w in (layer.kernel.to(dtype).float(), back.kernel.to(dtype).float())]
                layer.kernel, back.kernel = (torch.nn.Parameter(w.detach().to(dtype)) for w in weights)
                out = layer(engine.SparseTensor(features, coordinates))
                out = back(out) if kind == "up" else out
                used = [layer.kernel, back.kernel] if kind == "up" else [layer.kernel]
                loss = (out.F.float() * torch.linspace(-1, 1, out.F.numel()).view_as(out.F)).sum()
                outputs.append((out.F, *torch.autograd.grad(loss, [features, *used])))
            apart = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*map(_floats, outputs), strict=True))
            worst[f"{kind} {c_in}-{c_out} {str(dtype).removeprefix('torch.')}"] = apart
    return worst


def _floats(tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [t.detach().float() for t in tensors]


def repeated() -> bool:
    """Whether a repeated layer is bit-identical."""
    rng = np.random.default_rng(SEED)
    coordinates = batched_coordinates([torch.from_numpy(np.unique(rng.integers(-4, 4, (90, 3)), axis=0))])
    engine, results = sparse_backend("triton"), []
    torch.manual_seed(SEED)
    layer = engine.MinkowskiConvolution(16, 16, kernel_size=3)
    features = torch.randn(len(coordinates), 16)
    for _ in range(2):
        x = features.clone().requires_grad_()
        out = layer(engine.SparseTensor(x, coordinates)).F
        results.append((out, *torch.autograd.grad(out.square().sum(), [x, layer.kernel])))
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def compiled() -> list[dict[str, Any]]:
    """Registers and spilled bytes of each entry of the tile table, on three GPU generations."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource

    rows = []
    for name, kernel, types, constants, tile in _variants():
        names = kernel.arg_names
        # As at launch: torch's pointers are aligned to 16 bytes; strides of a kernel are 1 and a multiple of 16.
        is_aligned = [types.get(n, "")[:1] == "*" or n == "weight_in" for n in names]
        aligned = {(i,): [["tt.divisibility", 16]] for i, aligned in enumerate(is_aligned) if aligned}
        signature = {n: types.get(n, "constexpr") for n in names}
        for architecture in ARCHITECTURES if name.endswith("fp32") else ARCHITECTURES[1:2]:
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
            options = {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
            binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            target = re.search(r"\.target (\w+)", binary.asm["ptx"])
            assert target is not None
            with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
                file.write(binary.asm["ptx"])
                file.flush()
                command = [get_ptxas(architecture).path, "-v", f"--gpu-name={target[1]}", file.name, "-o", "/dev/null"]
                words = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            registers, spills = re.search(r"Used (\d+) registers", words), re.search(r"(\d+) bytes spill stores", words)
            assert registers is not None and spills is not None, words
            row = {"kernel": name, "sm": architecture, "registers": int(registers[1]), "spilled_bytes": int(spills[1])}
            rows.append({**row, "shared_bytes": binary.metadata.shared})
    return rows


def _variants() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], Any]]:
    """Name, kernel, argument types, constants and tile of each entry, in float32 and bfloat16."""
    kernels = implicit_gemm.kernels()
    assert kernels is not None
    integers = {"table": "*i32", "order": "*i64", "masks": "*i32", "rows": "i32", "table_stride": "i32"}
    for kind, dtype in POINTERS.items():
        for product in tiles.PRODUCT:
            channels = min(product.columns, 256)
            constants = {"weight_out": 1, "OFFSETS": 27, "C_IN": channels, "C_OUT": channels, "FLIP": False}
            constants |= {"ROWS": product.rows, "DEPTH": product.depth, "WIDE": product.wide, "NARROW": product.narrow}
            types = {**integers, "source": f"*{kind}", "weight": f"*{kind}", "out": f"*{kind}", "weight_in": "i32"}
            constants["PRECISION"] = implicit_gemm.precision(dtype)
            yield f"product {product.columns} {kind}", kernels.product, types, constants, product
        for gradient in tiles.GRADIENT:
            channels = min(gradient.columns, 96)
            constants = {"OFFSETS": 27, "C_IN": channels, "C_OUT": channels, "ROWS": gradient.rows}
            constants |= {"IN": gradient.inputs, "OUT": gradient.outputs, "PRECISION": implicit_gemm.precision(dtype)}
            types = {**integers, "source": f"*{kind}", "gradient": f"*{kind}", "partials": "*fp32", "share": "i32"}
            yield f"kernel_gradient {gradient.columns} {kind}", kernels.kernel_gradient, types, constants, gradient


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=["interpret", "compile"])
    if parser.parse_args().check == "interpret":
        print(json.dumps({"apart": interpreted(), "repeats": repeated()}))
    else:
        print(json.dumps(compiled()))
