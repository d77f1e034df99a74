"""Exported backbones: each format imports to the same weights, and spconv's weights compute the same convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from pretrain_bench.benchmarks.specs.checkpoint import ExportFormat
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.imported.exporting import export_checkpoint
from pretrain_bench.methods.imported.layouts import order_from_cube, spunet_shapes, to_spconv
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution, MinkowskiConvolutionTranspose
from pretrain_bench.methods.sparse.tensor import SparseTensor
from pretrain_bench.methods.training.checkpoint import save_weights
from tests.methods.test_import_checkpoint import NARROW, Weights, hybrid, imported, same
from tests.parity.vectors import formula_weights


@pytest.fixture(scope="module")
def weights() -> Weights:
    return formula_weights(Res16UNet34C(32, NARROW, 0.05))


@pytest.fixture(scope="module")
def backbone(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_weights({k: v for k, v in weights.items() if not k.startswith("final.")}, path)
    return path


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
@pytest.mark.parametrize("form", ["minkowski-0.5", "minkowski-0.4", "spconv"])
def test_exports_import_to_the_same_weights(
    form: Any, name: str, backbone: Path, weights: Weights, tmp_path: Path
) -> None:
    exported = export_checkpoint(backbone, NARROW, form)
    assert len(exported.weights) == 372 and not exported.left_out
    exported.save(tmp_path / name)
    result = imported(tmp_path / name)
    assert len(result.weights) == 372 and same(result.weights, weights)
    names, kernel = set(exported.weights), weights["block1.0.conv1.kernel"]
    if form == "spconv":
        assert {"conv0p1s1.weight", "bn0.running_var", "block2.0.downsample.0.weight", "block1.0.norm1.bias"} <= names
        assert exported.weights["block1.0.conv1.weight"].shape == (4, 3, 3, 3, 4)
        torch.save(exported.weights, tmp_path / "plain.pth")
        with pytest.raises(
            DataError, match=r"do not show the order of its kernels.*spconv: spconv 2, coordinates in the order x, y, z"
        ):
            imported(tmp_path / "plain.pth")
        assert same(imported(tmp_path / "plain.pth", "spconv").weights, weights)
        assert not same(imported(tmp_path / "plain.pth", "spconv-zyx").weights, weights)
    else:
        assert names == set(result.weights)
        assert torch.equal(exported.weights["block1.0.conv1.kernel"], kernel) == (form == "minkowski-0.5")
        assert form == "minkowski-0.5" or torch.equal(
            exported.weights["block1.0.conv1.kernel"], hybrid(weights)["block1.0.conv1.kernel"]
        )


@pytest.mark.parametrize("form", get_args(ExportFormat))
def test_a_head_is_no_part_of_a_backbone(form: Any, backbone: Path, weights: Weights, tmp_path: Path) -> None:
    """Scratch stores its network with the head."""
    save_weights(weights, tmp_path / "whole.safetensors")
    whole = export_checkpoint(tmp_path / "whole.safetensors", NARROW, form, partial=True)
    assert whole.weights.keys() == export_checkpoint(backbone, NARROW, form, partial=True).weights.keys()


def test_kernels_in_reverse_axes_come_back() -> None:
    kernel = torch.randn(27, 4, 5, generator=torch.Generator().manual_seed(0))
    stored = order_from_cube("x.kernel", kernel, "spconv-zyx")
    assert torch.equal(stored, to_spconv(kernel).permute(0, 3, 2, 1, 4)), "the same weights with x and z exchanged"


def test_pointcept_takes_what_has_a_place_in_its_network_and_the_rest_is_named(
    backbone: Path, weights: Weights, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refused:
        export_checkpoint(backbone, NARROW, "pointcept")
    message = str(refused.value)
    assert message.startswith(
        "40 of 372 tensors have no counterpart of their shape in Pointcept's SpUNet; --partial leaves them out"
    )
    assert "conv0p1s1.kernel: (4, 3, 3, 3, 3), SpUNet's conv_input.0.weight has (4, 5, 5, 5, 3)" in message
    assert "block2.0.downsample.0.kernel: SpUNet has no enc.1.block0.proj.0.weight" in message
    exported = export_checkpoint(backbone, NARROW, "pointcept", partial=True)
    assert (len(exported.weights), len(exported.left_out)) == (332, 40)
    exported.save(tmp_path / "spunet.pth")
    result = imported(tmp_path / "spunet.pth", partial=True)
    assert len(result.weights) == 332 and same(result.weights, weights) and result.place == "state_dict.backbone."
    with pytest.raises(
        DataError, match="names of Pointcept's SpUNet below 'state_dict.backbone.', 332 of 372 tensors fit"
    ):
        imported(tmp_path / "spunet.pth")


def test_spunets_names_and_shapes_are_those_of_its_source() -> None:
    """At full width, as in Pointcept's SpUNetBase: first layers, one level down and up, blocks with and without a projection."""
    shapes = spunet_shapes(NetworkSettings())
    weights = {n: s for n, s in shapes.items() if n.endswith("weight") and len(s) == 5}
    assert len(weights) == 59 and len(shapes) == 59 * 6
    expected = {
        "conv_input.0.weight": (32, 5, 5, 5, 3),
        "down.0.0.weight": (32, 2, 2, 2, 32),
        "down.3.0.weight": (256, 2, 2, 2, 128),
        "enc.3.block5.conv2.weight": (256, 3, 3, 3, 256),
        "up.3.0.weight": (256, 2, 2, 2, 256),
        "up.0.0.weight": (96, 2, 2, 2, 96),
        "dec.3.block0.conv1.weight": (256, 3, 3, 3, 384),
        "dec.0.block0.proj.0.weight": (96, 1, 1, 1, 128),
        "dec.0.block1.conv1.weight": (96, 3, 3, 3, 96),
    }
    assert {n: shapes.get(n) for n in expected} == expected
    assert "enc.1.block0.proj.0.weight" not in shapes and "dec.0.block1.proj.0.weight" not in shapes


def dense(features: torch.Tensor, coordinates: torch.Tensor, size: int) -> torch.Tensor:
    """(1, C, size, size, size), axes x, y, z."""
    grid = torch.zeros(1, features.shape[1], size, size, size)
    x, y, z = coordinates[:, 1:].long().T
    grid[0, :, x, y, z] = features.T
    return grid


def test_spconvs_weights_compute_the_same_convolutions() -> None:
    """Compared with torch's dense convolutions, whose weight is spconv's after permute(0, 4, 1, 2, 3), as in spconv's own tests."""
    generator = torch.Generator().manual_seed(0)
    size = 6
    cells = torch.cartesian_prod(*[torch.arange(size)] * 3)
    chosen = cells[torch.randperm(len(cells), generator=generator)[:90]]
    coordinates = torch.cat([torch.zeros(90, 1, dtype=torch.int64), chosen], 1).int()
    x = SparseTensor(torch.randn(90, 3, generator=generator), coordinates)
    grid = dense(x.F, coordinates, size)
    for side, convolve in (
        (3, lambda g, w: torch.nn.functional.conv3d(g, w, padding=1)),
        (1, torch.nn.functional.conv3d),
    ):
        layer = MinkowskiConvolution(3, 5, kernel_size=side)
        weight = to_spconv(layer.kernel.detach()).permute(0, 4, 1, 2, 3)
        out = layer(x)
        assert torch.allclose(dense_at(convolve(grid, weight), out.C), out.F.detach(), atol=1e-5)
    down, up = MinkowskiConvolution(3, 5, 2, stride=2), MinkowskiConvolutionTranspose(5, 4, 2, stride=2)
    coarse = down(x)
    weight = to_spconv(down.kernel.detach()).permute(0, 4, 1, 2, 3)
    whole = torch.nn.functional.conv3d(grid, weight, stride=2)
    halved = torch.cat([coarse.C[:, :1], coarse.C[:, 1:] // 2], 1)
    assert torch.allclose(dense_at(whole, halved), coarse.F.detach(), atol=1e-5)
    fine = up(coarse)
    weight = to_spconv(up.kernel.detach()).permute(4, 0, 1, 2, 3)  # (in, out, x, y, z), the layout of conv_transpose3d
    whole = torch.nn.functional.conv_transpose3d(dense(coarse.F.detach(), halved, size // 2), weight, stride=2)
    assert torch.allclose(dense_at(whole, fine.C), fine.F.detach(), atol=1e-5)


def dense_at(grid: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    x, y, z = coordinates[:, 1:].long().T
    return grid[0, :, x, y, z].T
