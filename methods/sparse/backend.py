"""Where the sparse layers come from: this project's engine, or MinkowskiEngine itself where it is installed."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse

BACKENDS = ("torch", "minkowski")
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
    """The layer names that networks use, from one backend.

    Raises WrongUse for an unknown name, EnvironmentCannot where MinkowskiEngine is asked for and not installed.
    """
    if name == "torch":
        from pretrain_bench.methods.sparse import conv, pointwise, pooling, quantize, tensor

        modules = (conv, pointwise, pooling, quantize, tensor)
        return SimpleNamespace(**{n: getattr(m, n) for m in modules for n in vars(m) if n in NAMES})
    if name == "minkowski":
        return _minkowski_engine()
    raise WrongUse(f"sparse backend {name!r}: expected one of {', '.join(BACKENDS)}")


def _minkowski_engine() -> ModuleType:
    try:
        import MinkowskiEngine
    except ImportError as error:
        raise EnvironmentCannot(
            f"sparse backend 'minkowski': MinkowskiEngine cannot be imported ({error}); use --backend torch"
        ) from None
    return MinkowskiEngine
