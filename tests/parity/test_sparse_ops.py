"""The sparse engine against MinkowskiEngine 0.5.4: features, gradients, kernel maps, quantisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells, voxel_labels
from pretrain_bench.methods.sparse import conv as conv_module
from pretrain_bench.methods.sparse import pooling
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution, MinkowskiConvolutionTranspose
from pretrain_bench.methods.sparse.kernel_map import kernel_offsets
from pretrain_bench.methods.sparse.pointwise import MinkowskiBatchNorm
from pretrain_bench.methods.sparse.quantize import sparse_quantize
from pretrain_bench.methods.sparse.tensor import SparseTensor, cat
from tests.parity.vectors import CONVOLUTIONS, case, load

VECTORS = load("sparse_ops")


@pytest.fixture(params=["walk", "padded", "padded in parts"], autouse=True)
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test of this file with each implementation of the convolution."""
    monkeypatch.setattr(conv_module, "PADDING_ALLOWED", -1 if request.param == "walk" else 1 << 60)
    if request.param == "padded in parts":
        monkeypatch.setattr(conv_module, "MOST_COLUMNS", 2000)


def source() -> SparseTensor:
    features = torch.from_numpy(VECTORS["feats"]).double().requires_grad_()
    return SparseTensor(features, torch.from_numpy(VECTORS["coords"]).int())


def with_kernel(layer: torch.nn.Module, kernel: np.ndarray, bias: np.ndarray | None = None) -> torch.nn.Module:
    layer = layer.double()
    assert layer.kernel.shape == kernel.shape
    layer.kernel.data = torch.from_numpy(kernel).double()
    if bias is not None:
        assert layer.bias.shape == bias.shape
        layer.bias.data = torch.from_numpy(bias).double()
    return layer


def conv(
    kernel: np.ndarray, size: int, stride: int = 1, dilation: int = 1, bias: np.ndarray | None = None
) -> torch.nn.Module:
    channels = kernel.shape[-2:]
    return with_kernel(MinkowskiConvolution(*channels, size, stride, dilation, bias is not None), kernel, bias)


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert np.abs(actual.detach().numpy() - expected).max() <= 1e-6 * scale


def sort_rows(x: SparseTensor) -> tuple[np.ndarray, torch.Tensor]:
    coordinates = x.C.numpy()
    order = np.lexsort(coordinates.T[::-1])
    return coordinates[order], x.F[torch.from_numpy(order)]


def compare(
    out: SparseTensor, x: SparseTensor, golden: dict[str, np.ndarray], layers: dict[str, torch.nn.Module]
) -> None:
    coordinates, features = sort_rows(out)
    assert np.array_equal(coordinates, golden["out_coords"])
    close(features, golden["out_feats"])
    (features * torch.from_numpy(golden["loss_weight"])).sum().backward()
    close(x.F.grad, golden["grad_feats"])
    for name, layer in layers.items():
        close(layer.kernel.grad, golden[f"grad_{name}"])
        if getattr(layer, "bias", None) is not None:
            close(layer.bias.grad, golden["grad_bias"])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    golden = case(VECTORS, name)
    size, stride, dilation = CONVOLUTIONS[name]
    layer = conv(golden["kernel"], size, stride, dilation, golden.get("bias"))
    x = source()
    compare(layer(x), x, golden, {"kernel": layer})


@pytest.mark.parametrize(("name", "dilation"), [("conv_k3s1_on_ts2", 1), ("conv_k3s1d2_on_ts2", 2)])
def test_convolution_on_a_coarser_tensor(name: str, dilation: int) -> None:
    golden = case(VECTORS, name)
    down, layer = conv(golden["kernel_down"], 2, 2), conv(golden["kernel"], 3, 1, dilation)
    x = source()
    compare(layer(down(x)), x, golden, {"kernel_down": down, "kernel": layer})


@pytest.mark.parametrize(("name", "size"), [("convtr_k2s2", 2), ("convtr_k3s2", 3)])
def test_transposed_convolution(name: str, size: int) -> None:
    golden = case(VECTORS, name)
    down = conv(golden["kernel_down"], size, 2)
    up = with_kernel(MinkowskiConvolutionTranspose(*golden["kernel_up"].shape[1:], size, 2), golden["kernel_up"])
    x = source()
    middle = down(x)
    coordinates, features = sort_rows(middle)
    assert np.array_equal(coordinates, golden["mid_coords"])
    close(features, golden["mid_feats"])
    compare(up(middle), x, golden, {"kernel_down": down, "kernel_up": up})


def test_chain_with_skips() -> None:
    golden = case(VECTORS, "chain")
    layers = {
        f"kernel_{c}": conv(golden[f"kernel_{c}"], 3 if c == "c0" else 2, 1 if c == "c0" else 2)
        for c in ("c0", "c1", "c2")
    }
    for c in ("t2", "t1"):
        kernel = golden[f"kernel_{c}"]
        layers[f"kernel_{c}"] = with_kernel(MinkowskiConvolutionTranspose(*kernel.shape[1:], 2, 2), kernel)
    x = source()
    a0 = layers["kernel_c0"](x)
    a1 = layers["kernel_c1"](a0)
    a2 = layers["kernel_c2"](a1)
    b1 = cat(layers["kernel_t2"](a2), a1)
    for name, tensor in (("a0", a0), ("a1", a1), ("a2", a2), ("b1", b1)):
        coordinates, features = sort_rows(tensor)
        assert np.array_equal(coordinates, golden[f"{name}_coords"])
        close(features, golden[f"{name}_feats"])
    compare(cat(layers["kernel_t1"](b1), a0), x, golden, layers)


@pytest.mark.parametrize(
    ("name", "size", "stride"), [("kernelmap_k3s1", 3, 1), ("kernelmap_k2s2", 2, 2), ("kernelmap_k3s2", 3, 2)]
)
def test_kernel_maps(name: str, size: int, stride: int) -> None:
    x = source()
    manager = x.coordinate_manager
    out_stride = manager.down(1, stride)
    found = manager.kernel_map(1, out_stride, size, 1)
    offsets = np.repeat(np.arange(size**3), np.diff(found.starts))
    rank = np.argsort(np.lexsort(manager.coordinates(out_stride).numpy().T[::-1]))
    triples = np.stack([offsets, found.in_rows.numpy(), rank[found.out_rows.numpy()]], axis=1)
    assert np.array_equal(triples[np.lexsort(triples.T[::-1])], VECTORS[name])


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (3, 1), (5, 1), (2, 2), (3, 2)])
def test_offset_order(size: int, stride: int) -> None:
    assert np.array_equal(kernel_offsets(size).numpy(), VECTORS[f"offsets_k{size}s{stride}"])


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
@pytest.mark.parametrize("size", [2, 3])
def test_local_pooling(kind: str, size: int) -> None:
    x = source()
    layer = getattr(pooling, f"Minkowski{kind.capitalize()}Pooling")(size, 2)
    compare(layer(x), x, case(VECTORS, f"{kind}pool_k{size}s2"), {})


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
def test_global_pooling(kind: str) -> None:
    x = source()
    compare(getattr(pooling, f"MinkowskiGlobal{kind.capitalize()}Pooling")()(x), x, case(VECTORS, f"global{kind}"), {})


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm(mode: str) -> None:
    golden = case(VECTORS, f"bn_{mode}")
    x = source()
    layer = MinkowskiBatchNorm(x.F.shape[1]).double()
    names = {k: v for k, v in golden.items() if k in ("weight", "bias")}
    for name, value in names.items():
        getattr(layer.bn, name).data = torch.from_numpy(value).double().reshape(-1)
    for name in ("running_mean", "running_var"):
        before = next(v for k, v in golden.items() if k.startswith(name) and "after" not in k)
        getattr(layer.bn, name).copy_(torch.from_numpy(before).double())
    layer.train(mode == "train")
    close(layer(x).F, golden["out_feats"])
    for name in ("running_mean", "running_var"):
        if f"{name}_after" in golden:
            close(getattr(layer.bn, name), golden[f"{name}_after"])


def test_quantisation() -> None:
    golden = case(VECTORS, "quant")
    voxels = quantise(to_cells(golden["points"], 0.1))
    assert np.array_equal(voxels.coordinates, golden["voxel_coords"])
    assert np.array_equal(voxels.representative, golden["representative"])
    assert np.array_equal(voxels.inverse, golden["inverse"])
    assert np.array_equal(voxel_labels(golden["labels"], voxels), golden["voxel_label"])
    assert np.array_equal(voxels.representative, golden["label_representative"])


def test_sparse_quantize_has_the_conflict_rule() -> None:
    golden = case(VECTORS, "quant")
    found = sparse_quantize(
        golden["points"],
        labels=golden["labels"],
        ignore_label=255,
        return_index=True,
        return_inverse=True,
        quantization_size=0.1,
    )
    for array, name in zip(found, ("voxel_coords", "voxel_label", "label_representative", "inverse"), strict=True):
        assert np.array_equal(array, golden[name]), name
    as_torch = sparse_quantize(torch.from_numpy(golden["points"]), quantization_size=0.1)
    assert isinstance(as_torch, torch.Tensor) and np.array_equal(as_torch.numpy(), golden["voxel_coords"])
