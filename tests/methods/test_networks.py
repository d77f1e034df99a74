from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes, not_transferred
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.finetune.core import load_backbone
from pretrain_bench.methods.networks.res16unet import Res16UNet34C, seeded_backbone
from pretrain_bench.methods.networks.resunet2d import PixelFeatureNet, ResNetEncoder, network_input
from pretrain_bench.methods.ours.recipe import OursImages
from pretrain_bench.methods.training.checkpoint import load_into, load_weights, save_backbone, save_weights


@pytest.mark.parametrize(
    ("inputs", "outputs", "parameters"),
    [(3, 32, 37_847_808), (3, 20, 37_846_644), (3, 13, 37_845_965), (4, 19, 37_847_411)],
)
def test_parameter_counts(inputs: int, outputs: int, parameters: int) -> None:
    net = Res16UNet34C(outputs, NetworkSettings(input_channels=inputs), momentum=0.05)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == 374


@pytest.mark.parametrize("width", [1.0, 0.25, 0.125])
def test_the_harness_knows_the_shapes_without_torch(width: float) -> None:
    settings = NetworkSettings(width=width)
    net = Res16UNet34C(7, settings, momentum=0.05)
    own = {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.startswith("final.")}
    assert own == backbone_shapes(settings) and list(own) == list(backbone_shapes(settings)) and len(own) == 372


def test_initial_weights_depend_on_the_seed_only() -> None:
    settings = NetworkSettings(width=0.125)
    torch.manual_seed(1)
    one = seeded_backbone(3, settings, 0.1, "torch", 5).state_dict()
    torch.manual_seed(2)
    two = seeded_backbone(3, settings, 0.1, "torch", 5).state_dict()
    other = seeded_backbone(3, settings, 0.1, "torch", 6).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["final.kernel"], other["final.kernel"])


def test_the_head_is_dropped_even_where_its_shape_fits() -> None:
    settings = NetworkSettings(width=0.125)
    source, target = (seeded_backbone(13, settings, 0.1, "torch", s) for s in (1, 2))
    head = target.final.kernel.detach().clone()
    assert load_into(target, source.state_dict(), ("final.",), "backbone") == (372, 374)
    assert torch.equal(target.final.kernel, head)
    assert torch.equal(target.conv0p1s1.kernel, source.conv0p1s1.kernel)


@pytest.mark.parametrize(("transfer", "transferred"), [("all", 372), ("encoder", 264)])
def test_fine_tuning_draws_anew_what_is_not_transferred(transfer: str, transferred: int, tmp_path: Path) -> None:
    settings = NetworkSettings(width=0.125)
    trained = seeded_backbone(7, settings, 0.1, "torch", 1)
    save_backbone(trained, tmp_path)
    spec = SimpleNamespace(
        network=settings, sparse_backend="torch", parents={"scans": "key"}, transfer=transfer, probe=None
    )
    context = SimpleNamespace(spec=spec, seed=lambda name: 2, parent=lambda stage: tmp_path, notes={})
    loaded = load_backbone(context, 5).state_dict()  # type: ignore[arg-type]
    fresh = seeded_backbone(5, settings, settings.finetune_bn_momentum, "torch", 2).state_dict()
    source = {**fresh, **{k: v for k, v in trained.state_dict().items() if not k.startswith(not_transferred(transfer))}}  # type: ignore[arg-type]
    assert all(torch.equal(loaded[k], source[k]) for k in fresh)
    assert context.notes["transferred_tensors"].startswith(f"{transferred} of 374, final.*")
    assert ("block8.*" in context.notes["transferred_tensors"]) == (transfer == "encoder")


def test_an_encoder_is_what_the_release_of_depthcontrast_fits() -> None:
    """The encoder has the tensors whose name and shape Res16UNet34 (with a 256-channel decoder) and Res16UNet34C share (spec A.5)."""
    names = ("conv0p1s1", "bn0", "convtr4p16s2", "bntr4", "block5")
    names += tuple(f"{kind}{n}" for n in range(1, 5) for kind in ("bn", "block"))
    names += ("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")
    shapes = backbone_shapes(NetworkSettings())
    kept = {k for k in shapes if not k.startswith(not_transferred("encoder"))}
    assert kept == {k for k in shapes if k.split(".")[0] in names}
    assert {k for k in shapes if not k.startswith(not_transferred("all"))} == set(shapes)


def test_a_checkpoint_of_another_shape_is_named() -> None:
    wide, narrow = (seeded_backbone(3, NetworkSettings(width=w), 0.1, "torch", 1) for w in (0.25, 0.125))
    with pytest.raises(DataError, match=r"tensor 'conv0p1s1.kernel' has shape \(27, 3, 8\), expected \(27, 3, 4\)"):
        load_into(narrow, wide.state_dict(), ("final.",), "backbone")
    state = narrow.state_dict()
    del state["block4.5.norm2.bn.weight"]
    with pytest.raises(DataError, match=r"block4\.5\.norm2\.bn\.weight' is missing"):
        load_into(narrow, state, ("final.",), "backbone")


def test_weight_files(tmp_path: Path) -> None:
    encoder = ResNetEncoder(18)
    state = {**encoder.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    save_weights(encoder.state_dict(), tmp_path / "own.safetensors")
    before_counters = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(before_counters, tmp_path / "torchvision.pth", _use_new_zipfile_serialization=False)
    assert load_into(ResNetEncoder(18), load_weights(tmp_path / "torchvision.pth"), (), "x", counters=False) == (
        100,
        120,
    )
    for name in ("new.pth", "old.pth", "w.safetensors", "own.safetensors"):
        loaded, total = load_into(ResNetEncoder(18), load_weights(tmp_path / name), (), "ImageNet weights")
        assert loaded == total


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_weight_files_with_anything_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    for name in ("evil.pth", "list.pth", "text.pth", "cut.safetensors", "missing.pth"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            load_weights(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("depth", [18, 34])
def test_encoder_has_torchvisions_names_and_sizes(depth: int) -> None:
    encoder = ResNetEncoder(depth)
    # 11,689,512 and 21,797,672 parameters in torchvision, of which the classifier has 513,000.
    assert sum(p.numel() for p in encoder.parameters()) == {18: 11_689_512, 34: 21_797_672}[depth] - 513_000
    state = encoder.state_dict()
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"} <= set(state)
    assert state["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    shapes = [tuple(f.shape[1:]) for f in encoder(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]


def test_pixel_features_have_one_row_a_pixel() -> None:
    net = PixelFeatureNet(OursImages())
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 16, 64, 64)
    assert not any("bias" in k for k in net.decoder.state_dict())
    style = PixelFeatureNet(OursImages(decoder="monodepth2", final_elu=False))
    assert "0.conv1.bias" in style.decoder.state_dict()
    assert not style.decoder[4].activate_last and style.decoder[3].activate_last


def test_a_frozen_encoder_gets_no_gradient() -> None:
    net = PixelFeatureNet(OursImages(encoder_depth=18))
    net(torch.randn(2, 3, 32, 32), train_encoder=False).sum().backward()
    assert all(p.grad is None for p in net.encoder.parameters())
    assert all(p.grad is not None for p in net.decoder.parameters())


def test_network_input() -> None:
    white = torch.ones(1, 3, 2, 2)
    assert torch.allclose(
        network_input(white, "imagenet", "rgb")[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.64]), atol=1e-3
    )
    red = torch.zeros(1, 3, 1, 1)
    red[0, 0] = 1
    assert network_input(red, "none", "bgr").flatten().tolist() == [0, 0, 1]
    assert torch.equal(network_input(red, "imagenet", "bgr"), network_input(red.flip(1), "imagenet", "rgb"))
