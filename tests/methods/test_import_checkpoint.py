"""Imported checkpoints: the network is located in the file, kernels are reordered, and no pickled code runs."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.checkpoint import ORIGINS, ExportFormat
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.imported.layouts import HYBRID_TO_CUBE
from pretrain_bench.methods.imported.matching import Imported, Request, import_checkpoint
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse.conv import MinkowskiConvolution
from pretrain_bench.methods.sparse.kernel_map import kernel_offsets
from pretrain_bench.methods.sparse.tensor import SparseTensor
from pretrain_bench.methods.training.checkpoint import load_weights, save_weights
from tests.conftest import REPOSITORY, Bench
from tests.methods.test_networks import Evil
from tests.parity.vectors import formula_weights, load

VECTORS = load("sparse_ops")
NARROW = NetworkSettings(width=0.125)
Weights = dict[str, torch.Tensor]


def imported(path: Path, origin: str | None = None, **more: Any) -> Imported:
    return import_checkpoint(Request(path=path, origin=origin, **{"network": NARROW, **more}))


def hybrid(state: Weights) -> Weights:
    """Weights as a network for MinkowskiEngine before 0.5 stores them."""
    inverse = torch.tensor(np.argsort(HYBRID_TO_CUBE))
    return {k: v[inverse] if k.startswith("block") and ".conv" in k else v for k, v in state.items()}


def prefixed(prefix: str, state: Weights) -> Weights:
    return {prefix + k: v for k, v in state.items()}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return formula_weights(Res16UNet34C(32, NARROW, 0.05))


def same(one: Weights, two: Weights) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_permutation_is_that_of_the_vectors() -> None:
    assert np.array_equal(HYBRID_TO_CUBE, VECTORS["hybrid_to_cube_permutation"])
    offsets = kernel_offsets(3).numpy()
    assert np.array_equal(VECTORS["hybrid_offsets_k3"][list(HYBRID_TO_CUBE)], offsets)


def test_each_neighbour_picks_its_own_number_after_the_permutation() -> None:
    """A kernel in hybrid order with one number per offset, applied to voxels one offset apart."""
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
        ("csc", lambda w: {"state_dict": prefixed("module.", w)}),
        ("csc-votenet", lambda w: {"epoch": 3, "state_dict": {**prefixed("backbone_net.net.", w), "vgen.conv1.weight": torch.zeros(1)}}),
        ("depthcontrast", lambda w: {"model": {**prefixed("module.trunk.2.", w), **prefixed("module.trunk.3.", {k: v + 1 for k, v in w.items()})}}),
    ],
)  # fmt: skip
def test_released_layouts(origin: str, wrap: Callable[[Weights], Any], weights: Weights, tmp_path: Path) -> None:
    torch.save(wrap(hybrid(weights)), tmp_path / "c.pth")
    result = imported(tmp_path / "c.pth", origin)
    assert (len(result.weights), result.permuted) == (372, 46) and set(result.weights) == set(backbone_shapes(NARROW))
    assert result.dropped == ["final.bias", "final.kernel"] and same(result.weights, weights)


@pytest.mark.parametrize(
    ("prefix", "nest"),
    [("", None), ("module.", "state_dict"), ("backbone.", "model"), ("model.", "network"), ("net.", "model_state_dict"),
     ("module.backbone.", "state_dict"), ("some.common.", "weights")],
)  # fmt: skip
def test_prefixes_and_nests_are_found_by_the_shapes(
    prefix: str, nest: str | None, weights: Weights, tmp_path: Path
) -> None:
    state: dict[str, Any] = prefixed(prefix, weights)
    torch.save(state if nest is None else {nest: state, "epoch": 7}, tmp_path / "c.pth")
    result = imported(tmp_path / "c.pth", "minkowski-0.5")
    assert same(result.weights, weights) and result.permuted == 0
    assert result.place == ("" if nest is None else f"{nest}.") + prefix
    if nest is None:
        save_file(state, tmp_path / "c.safetensors")
        assert same(imported(tmp_path / "c.safetensors", "minkowski-0.5").weights, weights)


def test_half_precision_and_files_without_counters(weights: Weights, tmp_path: Path) -> None:
    for number, kind in enumerate((torch.float16, torch.bfloat16)):
        half = {k: v.to(kind) if v.is_floating_point() else v for k, v in weights.items()}
        torch.save(half, tmp_path / f"{number}.pth")
        result = imported(tmp_path / f"{number}.pth", "minkowski-0.5").weights
        assert all(v.dtype in (torch.float32, torch.int64) for v in result.values())
        assert all(torch.equal(v, half[k].float()) for k, v in result.items() if v.is_floating_point())
    torch.save({k: v for k, v in weights.items() if "num_batches" not in k}, tmp_path / "old.pth")
    assert len(imported(tmp_path / "old.pth", "minkowski-0.5").weights) == 372


def test_lightning_files_are_read_without_lightning(weights: Weights, tmp_path: Path) -> None:
    """Hyper-parameters are an AttributeDict, callbacks hold numpy scalars and paths; none of that code is needed or executed."""
    name = "pytorch_lightning.utilities.parsing"
    module = types.ModuleType(name)

    class AttributeDict(dict[str, Any]):
        pass

    AttributeDict.__module__, AttributeDict.__qualname__ = name, "AttributeDict"
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    names = [name.rsplit(".", n)[0] for n in (2, 1, 0)]
    sys.modules |= {n: types.ModuleType(n) for n in names[:2]} | {name: module}
    content = {
        "epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": {**prefixed("model.", weights), "head.weight": torch.zeros(2)},
        "hyper_parameters": AttributeDict(lr=0.1), "callbacks": {"ModelCheckpoint": {"best": np.float64(0.5), "dir": Path("logs")}},
    }  # fmt: skip
    try:
        torch.save(content, tmp_path / "last.ckpt")
    finally:
        for n in names:
            del sys.modules[n]
    result = imported(tmp_path / "last.ckpt", "minkowski-0.5")
    assert same(result.weights, weights) and result.place == "state_dict.model."


def test_the_order_of_kernels_has_to_be_named_where_it_cannot_be_read(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(
        DataError, match=r"do not show the order of its kernels.*--method NAME=ORIGIN:FILE.*pointcontrast"
    ):
        imported(tmp_path / "c.pth")
    save_weights(weights, tmp_path / "own.safetensors")
    assert same(imported(tmp_path / "own.safetensors").weights, weights), "files of this project state it"
    with pytest.raises(
        DataError,
        match=r"'csc' means kernels in the order of minkowski-0.4, but those of the file are in the order of minkowski-0.5",
    ):
        imported(tmp_path / "own.safetensors", "csc")
    with pytest.raises(DataError, match="in the order of spconv, but its tensors have the layout of MinkowskiEngine"):
        imported(tmp_path / "c.pth", "spconv")


def test_the_user_selects_one_of_two_networks_in_a_file(weights: Weights, tmp_path: Path) -> None:
    other = {k: v + 1 for k, v in weights.items()}
    torch.save({"model": prefixed("q.", weights) | prefixed("k.", other)}, tmp_path / "c.pth")
    with pytest.raises(
        DataError, match=r"2 networks in it fit, at 'model\.[qk]\.' and 'model\.[qk]\.'; .*--prefix model"
    ):
        imported(tmp_path / "c.pth", "minkowski-0.5")
    assert same(imported(tmp_path / "c.pth", "minkowski-0.5", prefix="model.k.").weights, other)
    with pytest.raises(
        DataError, match=r"--prefix 'x\.' matches no network; networks in the file: 'model\.k\.', 'model\.q\.'"
    ):
        imported(tmp_path / "c.pth", "minkowski-0.5", prefix="x.")
    torch.save({"model": weights, "ema": dict(weights)}, tmp_path / "twins.pth")
    assert same(imported(tmp_path / "twins.pth", "minkowski-0.5").weights, weights), "equal copies leave no choice"


def test_a_network_that_fits_in_part_is_refused_unless_asked_for(weights: Weights, tmp_path: Path) -> None:
    """The last blocks of DepthContrast's own trunk are wider."""
    wide = {
        k: torch.zeros(*v.shape[:-1], 256) if k.startswith("block8") and v.ndim == 3 else v
        for k, v in hybrid(weights).items()
    }
    torch.save({"model": prefixed("module.trunk.2.", wide), "epoch": 1}, tmp_path / "c.pth")
    with pytest.raises(DataError) as refused:
        imported(tmp_path / "c.pth", "depthcontrast")
    assert str(refused.value).removeprefix(str(tmp_path)) == (
        "/c.pth: it holds model: 374 tensors (module.); nearest match: names of MinkowskiEngine below 'model.module.trunk.2.', "
        "368 of 372 tensors fit, first that does not: block8.0.conv1.kernel has shape (27, 16, 256), expected (27, 16, 12); "
        "a part of a backbone is accepted with: bench methods import-checkpoint FILE --partial"
    )
    result = imported(tmp_path / "c.pth", "depthcontrast", partial=True)
    assert len(result.weights) == 368 and len(result.reshaped) == 4
    torch.save({"net": {"a.x": torch.zeros(1)}, "b": {"c": {"y": torch.zeros(1)}}}, tmp_path / "other.pth")
    with pytest.raises(
        DataError, match=r"it holds net: 1 tensors \(a\.\); b\.c: 1 tensors \(no prefix\); none of its tensors"
    ):
        imported(tmp_path / "other.pth", "csc", partial=True)


def test_a_network_of_another_width_names_the_profiles_that_fit(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": weights}, tmp_path / "c.pth")
    profiles = {"narrow": NARROW, "deep": NetworkSettings(width=0.125, first_kernel=5), "full": NetworkSettings()}
    with pytest.raises(
        DataError,
        match=r"first that does not: conv0p1s1\.kernel has shape \(27, 3, 4\), expected \(27, 3, 32\)\. The network of the file has "
        r"width 0\.125 \(here 1\): use --profile narrow, or a profile of your own .* network: \{width: 0\.125\}",
    ):
        imported(tmp_path / "c.pth", "minkowski-0.5", network=NetworkSettings(), profiles=profiles)
    several = {"ablation": NARROW, "headline": NARROW, "mine": NARROW}
    with pytest.raises(DataError, match=r"use --profile headline, or a profile of your own"):
        imported(tmp_path / "c.pth", "minkowski-0.5", network=NetworkSettings(), profiles=several)
    with pytest.raises(DataError, match=r"first_kernel 3 \(here 5\): use a profile of your own"):
        imported(tmp_path / "c.pth", "minkowski-0.5", network=profiles["deep"], profiles={"full": profiles["full"]})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_settings_of_other_libraries_are_skipped_and_code_is_refused(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert imported(tmp_path / "pc.pth", "pointcontrast").permuted == 46
    torch.save({"state_dict": hybrid(weights), "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match=r"evil\.pth: refused: it holds print, which is neither a tensor") as refused:
        imported(tmp_path / "evil.pth", "pointcontrast")
    assert "weights_only" not in str(refused.value), "torch's advice is to load it all the same"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "program.pth")
    with pytest.raises(DataError, match=r"program\.pth: refused: it is a TorchScript program"):
        imported(tmp_path / "program.pth", "pointcontrast")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        imported(tmp_path, "pointcontrast")
    (tmp_path / "junk.pth").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"junk\.pth: refused: it is damaged, or not a file of weights"):
        imported(tmp_path / "junk.pth", "pointcontrast")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(weights: Weights, value: float, tmp_path: Path) -> None:
    broken = {**weights, "bn0.bn.running_mean": torch.full_like(weights["bn0.bn.running_mean"], value)}
    torch.save(broken, tmp_path / "a.pth")
    reason = r"1 of \d+ tensors hold NaN or infinite values, first 'bn0.bn.running_mean' \(4 of 4\)"
    with pytest.raises(DataError, match=rf"a\.pth: {reason}"):
        imported(tmp_path / "a.pth", "minkowski-0.5")
    with pytest.raises(DataError, match=reason):
        load_weights(tmp_path / "a.pth")


def test_the_docs_list_all_origins_and_formats() -> None:
    page = (REPOSITORY / "docs/checkpoints.md").read_text()
    origins, _, formats = page.partition("\n## The way back")
    origins = origins.partition("\n| origin | files |\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| ((?:`[\w.-]+`(?:, )?)+) \|", origins, flags=re.M)
    assert set(re.findall(r"`([\w.-]+)`", " ".join(listed))) == set(ORIGINS)
    assert tuple(re.findall(r"^\| `([\w.-]+)` \|", formats, flags=re.M)) == get_args(ExportFormat)


@pytest.mark.slow
def test_the_command(tmp_path: Path, bench: Bench) -> None:
    weights = formula_weights(Res16UNet34C(32, NetworkSettings(), 0.05))
    torch.save({"state_dict": hybrid(weights)}, tmp_path / "c.pth")
    done = bench("methods", "import-checkpoint", "c.pth", "--origin", "csc", "--out", "new/b.safetensors")
    assert "372 of 372 tensors" in done.stdout and "46 reordered" in done.stdout
    assert torch.equal(
        load_file(tmp_path / "new/b.safetensors")["block8.1.conv2.kernel"], weights["block8.1.conv2.kernel"]
    )
    again = bench("methods", "import-checkpoint", "new/b.safetensors", "--json")
    assert json.loads(again.stdout)["permuted"] == 0
    error = bench("methods", "import-checkpoint", "c.pth", "--origin", "mars", code=2).stderr
    assert "--origin 'mars': expected one of pointcontrast, csc" in error
    assert "no such file" in bench("methods", "import-checkpoint", "none.pth", "--origin", "csc", code=2).stderr
    (tmp_path / "file").write_text("")
    error = bench("methods", "import-checkpoint", "c.pth", "--origin", "csc", "--out", "file/b", code=3).stderr
    assert "file/b: backbone (--out names another file): cannot be written: File exists" in error
    assert not list(tmp_path.rglob("*.tmp"))
