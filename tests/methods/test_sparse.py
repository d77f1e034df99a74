"""The sparse engine against dense convolutions, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.methods.flops import flops
from pretrain_bench.methods.sparse import conv as conv_module
from pretrain_bench.methods.sparse import kernel_map
from pretrain_bench.methods.sparse.backend import NAMES, sparse_backend
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution, MinkowskiConvolutionTranspose
from pretrain_bench.methods.sparse.kernel_map import CoordinateIndex
from pretrain_bench.methods.sparse.pointwise import MinkowskiBatchNorm
from pretrain_bench.methods.sparse.quantize import sparse_collate
from pretrain_bench.methods.sparse.tensor import SparseTensor, SparseTensorQuantizationMode, batched_coordinates

SEED = 13


def random_tensor(channels: int, count: int = 300, low: int = -6, high: int = 6, seed: int = SEED) -> SparseTensor:
    rng = np.random.default_rng(seed)
    clouds = [np.unique(rng.integers(low, high, (count, 3)), axis=0) for _ in range(2)]
    clouds = [rng.permutation(c) for c in clouds]
    coordinates = batched_coordinates([torch.from_numpy(c) for c in clouds])
    features = torch.from_numpy(rng.normal(size=(len(coordinates), channels))).requires_grad_()
    return SparseTensor(features, coordinates)


def dense_grid(x: SparseTensor, low: int, size: int) -> torch.Tensor:
    """(B, C, X, Y, Z), zero at empty voxels."""
    grid = torch.zeros(2, size, size, size, x.F.shape[1], dtype=x.F.dtype)
    b, i, j, k = (x.C[:, 0], *(x.C[:, a] - low for a in (1, 2, 3)))
    grid = grid.index_put((b.long(), i.long(), j.long(), k.long()), x.F)
    return grid.permute(0, 4, 1, 2, 3)


def dense_kernel(kernel: torch.Tensor, size: int) -> torch.Tensor:
    """kernel[k, in, out], x fastest, to conv3d's (out, in, X, Y, Z)."""
    return kernel.reshape(size, size, size, *kernel.shape[1:]).permute(4, 3, 2, 1, 0)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_odd_kernels_equal_dense_convolution(size: int, dilation: int) -> None:
    torch.manual_seed(SEED)
    x = random_tensor(4)
    layer = MinkowskiConvolution(4, 5, size, dilation=dilation).double()
    out = layer(x)
    low = -6 - dilation * size
    grid = dense_grid(x, low, 12 + 2 * dilation * size)
    dense = functional.conv3d(grid, dense_kernel(layer.kernel, size), padding=dilation * (size // 2), dilation=dilation)
    b, i, j, k = (x.C[:, 0].long(), *((x.C[:, a] - low).long() for a in (1, 2, 3)))
    expected = dense.permute(0, 2, 3, 4, 1)[b, i, j, k]
    assert torch.allclose(out.F, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((out.F * weight).sum(), [x.F, layer.kernel])
    dense_gradients = torch.autograd.grad((expected * weight).sum(), [x.F, layer.kernel])
    for ours, theirs in zip(gradients, dense_gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)


def test_stride_two_equals_dense_convolution() -> None:
    torch.manual_seed(SEED)
    x = random_tensor(3)
    layer = MinkowskiConvolution(3, 4, 2, 2).double()
    out = layer(x)
    dense = functional.conv3d(dense_grid(x, -6, 12), dense_kernel(layer.kernel, 2), stride=2)
    b, i, j, k = (out.C[:, 0].long(), *(((out.C[:, a] + 6) // 2).long() for a in (1, 2, 3)))
    assert torch.allclose(out.F, dense.permute(0, 2, 3, 4, 1)[b, i, j, k], atol=1e-12)
    assert out.tensor_stride == [2, 2, 2] and (out.C[:, 1:] % 2 == 0).all()


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2)])
def test_transposed_is_the_adjoint(size: int, stride: int) -> None:
    """<conv(x), y> = <x, transposed(y)> with one kernel, transposed in its channels."""
    torch.manual_seed(SEED)
    x = random_tensor(3)
    down = MinkowskiConvolution(3, 4, size, stride).double()
    up = MinkowskiConvolutionTranspose(4, 3, size, stride).double()
    up.kernel.data = down.kernel.data.transpose(1, 2).contiguous()
    coarse = down(x)
    y = coarse.with_features(torch.randn_like(coarse.F))
    assert torch.allclose((coarse.F * y.F).sum(), (x.F * up(y).F).sum(), atol=1e-10)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(SEED)
    x = random_tensor(2, count=25, low=-2, high=2)
    layer = MinkowskiConvolution(2, 3, 3).double()

    def run(features: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"kernel": kernel}, (x.with_features(features),)).F

    assert torch.autograd.gradcheck(run, (x.F.detach().requires_grad_(), layer.kernel))


def test_row_order_does_not_matter() -> None:
    torch.manual_seed(SEED)
    x = random_tensor(3)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    shuffled = SparseTensor(x.F[order], x.C[order])
    layer = MinkowskiConvolution(3, 4, 3).double()
    assert torch.allclose(layer(x).F[order], layer(shuffled).F, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_table_and_search_find_the_same_neighbours(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_tensor(1)
    coarse, _ = kernel_map.stride_coordinates(x.C, 2)
    for inputs, outputs, same in ((x.C, x.C, True), (x.C, coarse, False)):
        quick = kernel_map.search_map(inputs, outputs, size, 1, same)
        monkeypatch.setattr(kernel_map, "TABLE_CELLS", 0)
        slow = kernel_map.search_map(inputs, outputs, size, 1, same)
        monkeypatch.undo()
        assert torch.equal(quick.in_rows, slow.in_rows) and torch.equal(quick.out_rows, slow.out_rows)
        assert quick.starts == slow.starts and quick.pairs > 0


def test_flops_are_counted_from_pairs() -> None:
    x = SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32))
    before = flops.training, flops.sparse_forward
    MinkowskiConvolution(3, 5, 3)(x)
    assert flops.sparse_forward - before[1] == 2 * 4 * 3 * 5  # two centres and two neighbours
    assert flops.training - before[0] == 2 * 2 * 4 * 3 * 5, "the kernel learns, the input does not"


@pytest.mark.parametrize("cells", [kernel_map.TABLE_CELLS, 0])
def test_duplicates_are_refused(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_map, "TABLE_CELLS", cells)
    twice = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]], dtype=torch.int32)
    with pytest.raises(ValueError, match="1 of 2 coordinates are duplicates"):
        SparseTensor(torch.ones(2, 1), twice)


def test_other_misuse_is_refused() -> None:
    coordinates = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32)
    with pytest.raises(ValueError, match="2 feature rows, but 1 coordinates"):
        SparseTensor(torch.ones(2, 1), coordinates)
    with pytest.raises(ValueError, match="batch index first"):
        SparseTensor(torch.ones(1, 1), coordinates[:, 1:])
    with pytest.raises(ValueError, match="same coordinates can be added"):
        SparseTensor(torch.ones(1, 1), coordinates) + SparseTensor(torch.ones(1, 1), coordinates)
    with pytest.raises(ValueError, match="no coordinates at tensor stride"):
        MinkowskiConvolutionTranspose(1, 1, 2, 2)(SparseTensor(torch.ones(1, 1), coordinates))
    with pytest.raises(ValueError, match="too many to number"):
        CoordinateIndex(torch.tensor([[0, -(2**31), -(2**31), -(2**31)], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]]), 1)


def test_backends() -> None:
    with pytest.raises(WrongUse, match="expected one of torch, triton, minkowski"):
        sparse_backend("spconv")
    try:
        import MinkowskiEngine  # noqa: F401
    except ImportError:
        with pytest.raises(EnvironmentCannot, match="use --backend torch"):
            sparse_backend("minkowski")


def test_one_by_one_kernels_are_matrices_and_start_uniform() -> None:
    torch.manual_seed(SEED)
    layer = MinkowskiConvolution(64, 8, 1, bias=True)
    assert layer.kernel.shape == (64, 8) and layer.bias is not None and layer.bias.shape == (1, 8)
    assert 0.115 < float(layer.kernel.detach().abs().max()) <= 0.125
    up = MinkowskiConvolutionTranspose(64, 8, 2, 2)
    assert up.kernel.shape == (8, 64, 8) and 0.12 < float(up.kernel.detach().abs().max()) <= 0.125


def test_batch_norm_of_a_single_voxel_uses_the_running_statistics() -> None:
    layer = MinkowskiBatchNorm(2).train()
    layer.bn.running_mean.copy_(torch.tensor([1.0, 2.0]))
    out = layer(SparseTensor(torch.tensor([[3.0, 2.0]]), torch.zeros(1, 4, dtype=torch.int32)))
    assert torch.allclose(out.F, torch.tensor([[2.0, 0.0]]), atol=1e-4)
    assert layer.bn.running_mean.tolist() == [1.0, 2.0]


def test_duplicates_are_merged_only_on_request() -> None:
    coordinates = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32)
    features = torch.tensor([[1.0], [5.0], [3.0]])
    for mode, expected in (("UNWEIGHTED_AVERAGE", [5.0, 2.0]), ("UNWEIGHTED_SUM", [5.0, 4.0])):
        merged = SparseTensor(features, coordinates, quantization_mode=SparseTensorQuantizationMode[mode])
        assert merged.C[:, 1].tolist() == [0, 1] and merged.F[:, 0].tolist() == expected


def test_batch_items_come_apart_again() -> None:
    x = random_tensor(2)
    coordinates, features = x.decomposed_coordinates_and_features
    assert torch.equal(torch.cat(features), x.F) and torch.equal(torch.cat(coordinates), x.C[:, 1:])
    batch, joined, labels = sparse_collate(coordinates, features, [torch.zeros(len(c)) for c in coordinates])
    assert torch.equal(batch, x.C) and torch.equal(joined, x.F) and len(labels) == len(x)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("LeakyReLU", functional.leaky_relu),
        ("ELU", functional.elu),
        ("Tanh", torch.tanh),
        ("Sigmoid", torch.sigmoid),
        ("ReLU", torch.relu),
    ],
)
def test_activations(name: str, function) -> None:
    x = random_tensor(2)
    assert torch.equal(getattr(sparse_backend("torch"), f"Minkowski{name}")()(x).F, function(x.F))


def test_the_backend_offers_the_whole_interface() -> None:
    assert set(vars(sparse_backend("torch"))) == NAMES


@pytest.mark.parametrize("padding", [-1, 1 << 60])
@pytest.mark.parametrize("numbers", [1, 40, kernel_map.BLOCK_NUMBERS])
def test_neither_blocks_nor_padding_change_anything(
    numbers: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(SEED)
    x = random_tensor(3)
    order = torch.from_numpy(np.lexsort(x.C.numpy().T[::-1]).copy())
    down, conv, up = (
        MinkowskiConvolution(3, 4, 2, 2),
        MinkowskiConvolution(4, 4, 3),
        MinkowskiConvolutionTranspose(4, 2, 2, 2),
    )
    layers = torch.nn.ModuleList([down, conv, up]).double()
    results = []
    for rows in (order, torch.arange(len(order))):
        if rows is order:
            monkeypatch.setattr(kernel_map, "BLOCK_NUMBERS", numbers)
            monkeypatch.setattr(conv_module, "PADDING_ALLOWED", -1)
        else:
            monkeypatch.undo()
            monkeypatch.setattr(conv_module, "PADDING_ALLOWED", padding)
        layers.zero_grad()
        features = x.F.detach()[rows].requires_grad_()
        out = up(conv(down(SparseTensor(features, x.C[rows]))))
        weight = x.F.detach()[rows][:, :2]
        (out.F * weight).sum().backward()
        back = torch.argsort(rows)
        results.append([out.F[back], features.grad[back], *(layer.kernel.grad.clone() for layer in (down, conv, up))])
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, atol=1e-11)


@pytest.fixture(params=["walk", "padded", "padded in parts"], autouse=True)
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test of this file with each implementation of the convolution."""
    monkeypatch.setattr(conv_module, "PADDING_ALLOWED", -1 if request.param == "walk" else 1 << 60)
    if request.param == "padded in parts":
        monkeypatch.setattr(conv_module, "MOST_COLUMNS", 2000)
