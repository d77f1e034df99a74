"""Where the sparse layers come from: this project's engine, or MinkowskiEngine itself where it is installed."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.errors import EnvironmentCannot, WrongUse

BACKENDS = ("torch", "minkowski")


def sparse_backend(name: str) -> Any:
    """The layer names that networks use, from one backend.

    Raises WrongUse for an unknown name, EnvironmentCannot where MinkowskiEngine is asked for and not installed.
    """
    if name == "torch":
        from methods.sparse import conv, pointwise, tensor

        return SimpleNamespace(
            SparseTensor=tensor.SparseTensor,
            cat=tensor.cat,
            MinkowskiConvolution=conv.MinkowskiConvolution,
            MinkowskiConvolutionTranspose=conv.MinkowskiConvolutionTranspose,
            MinkowskiBatchNorm=pointwise.MinkowskiBatchNorm,
            MinkowskiReLU=pointwise.MinkowskiReLU,
        )
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
