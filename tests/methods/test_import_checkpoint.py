"""Released checkpoints: the right kernel order, nothing silently scrambled, nothing unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.import_checkpoint import HYBRID_TO_CUBE, import_checkpoint, main
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution
from pretrain_bench.methods.sparse.kernel_map import kernel_offsets
from pretrain_bench.methods.sparse.tensor import SparseTensor
from pretrain_bench.methods.training.checkpoint import load_weights
from tests.conftest import Bench
from tests.methods.test_networks import Evil
from tests.parity.vectors import formula_weights, load

VECTORS = load("sparse_ops")


def hybrid(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as a network before MinkowskiEngine 0.5 would have stored them."""
    inverse = torch.tensor(np.argsort(HYBRID_TO_CUBE))
    return {k: v[inverse] if k.startswith("block") and ".conv" in k else v for k, v in state.items()}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return formula_weights(Res16UNet34C(32, NetworkSettings(), 0.05))


def test_the_permutation_is_that_of_the_vectors() -> None:
    assert np.array_equal(HYBRID_TO_CUBE, VECTORS["hybrid_to_cube_permutation"])
    offsets = kernel_offsets(3).numpy()
    assert np.array_equal(VECTORS["hybrid_offsets_k3"][list(HYBRID_TO_CUBE)], offsets)


def test_each_neighbour_picks_its_own_number_after_the_permutation() -> None:
    """A kernel in hybrid order with a number for each offset, on voxels one offset apart."""
    kernel_hybrid = torch.arange(27.0).reshape(27, 1, 1)
    layer = MinkowskiConvolution(1, 1, 3)
    layer.kernel.data = kernel_hybrid[torch.tensor(HYBRID_TO_CUBE)]
    for number, offset in enumerate(VECTORS["hybrid_offsets_k3"].tolist()):
        if offset == [0, 0, 0]:
            continue
        coordinates = torch.tensor([[0, 0, 0, 0], [0, *offset]], dtype=torch.int32)
        x = SparseTensor(torch.tensor([[0.0], [1.0]]), coordinates)
        assert float(layer(x).F[0].detach()) == number


@pytest.mark.parametrize(
    ("origin", "wrap"),
    [
        ("pointcontrast", lambda w: {"curr_iter": 1, "state_dict": w, "optimizer": {"state": {}}}),
        ("csc", lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}}),
        ("csc-votenet", lambda w: {"epoch": 3, "state_dict": {**{f"backbone_net.net.{k}": v for k, v in w.items()}, "vgen.conv1.weight": torch.zeros(1)}}),
        ("depthcontrast", lambda w: {"model": {**{f"module.trunk.2.{k}": v for k, v in w.items()}, "module.trunk.0.x": torch.zeros(1)}}),
    ],
)  # fmt: skip
def test_released_layouts(origin: str, wrap, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(wrap(hybrid(weights)), tmp_path / "c.pth")
    imported = import_checkpoint(tmp_path / "c.pth", origin)
    assert (len(imported.weights), imported.permuted) == (372, 46)
    assert imported.dropped == ["final.bias", "final.kernel"]
    assert all(torch.equal(imported.weights[k], weights[k]) for k in imported.weights)


def test_cubic_files_are_left_as_they_are(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {f"model.{k}": v for k, v in weights.items()}}, tmp_path / "c.ckpt")
    imported = import_checkpoint(tmp_path / "c.ckpt", "minkowski-0.5")
    assert imported.permuted == 0 and torch.equal(
        imported.weights["block1.0.conv1.kernel"], weights["block1.0.conv1.kernel"]
    )


def test_a_network_that_fits_in_part_is_refused_unless_asked_for(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """DepthContrast's own trunk has wider last blocks."""
    wide = {
        k: torch.zeros(*v.shape[:-1], 256) if k.startswith("block8") and v.ndim == 3 else v
        for k, v in hybrid(weights).items()
    }
    torch.save({"model": {f"module.trunk.2.{k}": v for k, v in wide.items()}}, tmp_path / "c.pth")
    with pytest.raises(
        DataError,
        match=r"368 of 372 tensors fit \(block8\.0\.conv1\.kernel: \(27, 128, 256\), expected \(27, 128, 96\)\)",
    ):
        import_checkpoint(tmp_path / "c.pth", "depthcontrast")
    imported = import_checkpoint(tmp_path / "c.pth", "depthcontrast", partial=True)
    assert len(imported.weights) == 368 and len(imported.reshaped) == 4


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_settings_of_other_libraries_are_skipped_and_code_is_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys
    import types

    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self) -> None:
            self.content = {"a": 1}

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    sys.modules["omegaconf"], sys.modules["omegaconf.dictconfig"] = types.ModuleType("omegaconf"), module
    try:
        torch.save({"state_dict": hybrid(weights), "config": DictConfig()}, tmp_path / "pc.pth")
    finally:
        del sys.modules["omegaconf"], sys.modules["omegaconf.dictconfig"]
    assert import_checkpoint(tmp_path / "pc.pth", "pointcontrast").permuted == 46
    torch.save({"state_dict": hybrid(weights), "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match=r"evil\.pth: refused, it holds print, which is no tensor") as refused:
        import_checkpoint(tmp_path / "evil.pth", "pointcontrast")
    assert "weights_only" not in str(refused.value), "torch's advice is to load it all the same"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "program.pth")
    with pytest.raises(DataError, match=r"program\.pth: refused, it is a TorchScript program"):
        import_checkpoint(tmp_path / "program.pth", "pointcontrast")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        import_checkpoint(tmp_path, "pointcontrast")
    (tmp_path / "junk.pth").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"junk\.pth: refused, it is damaged or no file of weights"):
        import_checkpoint(tmp_path / "junk.pth", "pointcontrast")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_command(weights: dict[str, torch.Tensor], tmp_path: Path, bench: Bench) -> None:
    torch.save({"state_dict": hybrid(weights)}, tmp_path / "c.pth")
    done = bench("methods", "import-checkpoint", "c.pth", "--origin", "csc", "--out", "b.safetensors")
    assert "372 of 372 tensors" in done.stdout and "46" in done.stdout
    assert torch.equal(load_file(tmp_path / "b.safetensors")["block8.1.conv2.kernel"], weights["block8.1.conv2.kernel"])
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    error = bench("methods", "import-checkpoint", "other.pth", "--origin", "csc", code=2).stderr
    assert error.startswith("error: other.pth: 0 of 372 tensors fit (missing: conv0p1s1.kernel)")
    assert "372" not in bench("methods", "ls").stdout


@pytest.mark.slow  # each command starts an interpreter with torch
def test_more_of_the_command(weights: dict[str, torch.Tensor], tmp_path: Path, bench: Bench) -> None:
    torch.save({"state_dict": hybrid(weights)}, tmp_path / "c.pth")
    bench("methods", "import-checkpoint", "c.pth", "--origin", "csc", "--out", "b.safetensors")
    again = bench("methods", "import-checkpoint", "b.safetensors", "--origin", "bench", "--json")
    assert json.loads(again.stdout)["permuted"] == 0
    assert "invalid choice" in bench("methods", "import-checkpoint", "c.pth", "--origin", "mars", code=2).stderr
    assert "no such file" in bench("methods", "import-checkpoint", "none.pth", "--origin", "csc", code=2).stderr


def test_the_folder_of_the_backbone_is_made_and_nothing_half_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"bn0.bn.weight": torch.ones(32)}, tmp_path / "c.pth")
    command = [str(tmp_path / "c.pth"), "--origin", "bench", "--partial", "--out"]
    assert main([*command, str(tmp_path / "new/b.safetensors")]) == 0
    assert list(load_file(tmp_path / "new/b.safetensors")) == ["bn0.bn.weight"]
    (tmp_path / "file").write_text("")
    for out, why in ((tmp_path / "file/b", "File exists"), (tmp_path / "new", "Is a directory")):
        assert main([*command, str(out)]) == 3
        assert f"{out}: backbone (--out names another file): cannot be written: {why}" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    weights: dict[str, torch.Tensor], value: float, tmp_path: Path
) -> None:
    broken = {**weights, "bn0.bn.running_mean": torch.full_like(weights["bn0.bn.running_mean"], value)}
    torch.save(broken, tmp_path / "a.pth")
    reason = r"1 of \d+ tensors hold NaN or infinite values, first 'bn0.bn.running_mean' \(32 of 32\)"
    with pytest.raises(DataError, match=rf"a\.pth: {reason}"):
        import_checkpoint(tmp_path / "a.pth", "minkowski-0.5")
    with pytest.raises(DataError, match=reason):
        load_weights(tmp_path / "a.pth")
