"""The sparse backends: this project's engine in torch, with or without Triton kernels, or an installed MinkowskiEngine."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.methods.training.numerics import IN_USE

BACKENDS = ("torch", "triton", "minkowski")
NAMES = frozenset(
    [
        "SparseTensor",
        "SparseTensorQuantizationMode",
        "cat",
        "sparse_quantize",
        "sparse_collate",
        "MinkowskiConvolution",
        "MinkowskiConvolutionTranspose",
        "MinkowskiBatchNorm",
        "MinkowskiReLU",
        "MinkowskiLeakyReLU",
        "MinkowskiELU",
        "MinkowskiSigmoid",
        "MinkowskiTanh",
        "MinkowskiSumPooling",
        "MinkowskiAvgPooling",
        "MinkowskiMaxPooling",
        "MinkowskiGlobalSumPooling",
        "MinkowskiGlobalAvgPooling",
        "MinkowskiGlobalMaxPooling",
    ]
)
"""The part of MinkowskiEngine's interface that networks here may use."""


def sparse_backend(name: str) -> Any:
    """A namespace with the layers of one backend (NAMES, with MinkowskiEngine's interface).

    Raises WrongUse for an unknown name, and EnvironmentCannot if MinkowskiEngine is requested but cannot be imported.
    """
    if name in ("torch", "triton"):
        from pretrain_bench.methods.sparse import conv, pointwise, pooling, quantize, tensor

        modules = (conv, pointwise, pooling, quantize, tensor)
        engine = SimpleNamespace(**{n: getattr(m, n) for m in modules for n in vars(m) if n in NAMES})
        return engine if name == "torch" else _with_triton(engine)
    if name == "minkowski":
        return _minkowski_engine()
    raise WrongUse(f"sparse backend {name!r}: expected one of {', '.join(BACKENDS)}")


def _with_triton(engine: SimpleNamespace) -> SimpleNamespace:
    """The same layers, with all kernel maps built in one pass and convolutions in Triton where it supports them."""
    from pretrain_bench.methods.sparse import implicit_gemm, pyramid

    IN_USE["sparse_products"] = implicit_gemm.numerics()
    engine.SparseTensor = pyramid.PyramidTensor
    engine.MinkowskiConvolution = implicit_gemm.FusedConvolution
    engine.MinkowskiConvolutionTranspose = implicit_gemm.FusedConvolutionTranspose
    return engine


def _minkowski_engine() -> ModuleType:
    try:
        import MinkowskiEngine
    except ImportError as error:
        raise EnvironmentCannot(
            f"sparse backend 'minkowski': MinkowskiEngine cannot be imported ({error}); use --backend torch"
        ) from None
    return MinkowskiEngine
