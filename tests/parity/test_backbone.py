"""Res16UNet34C against the published networks: outputs, taps, gradients, running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.sparse.tensor import SparseTensor
from tests.parity.vectors import formula, formula_weights, load

SMALL = load("backbone_small")


@pytest.fixture(scope="module")
def small() -> tuple[str, dict[str, np.ndarray]]:
    return "small", SMALL


@pytest.fixture(scope="module")
def room(golden_shared: Path) -> tuple[str, dict[str, np.ndarray]]:
    with np.load(golden_shared / "backbone.npz") as archive:
        return "room", dict(archive)


def network(classes: int, mode: str, dtype: torch.dtype = torch.float64) -> Res16UNet34C:
    net = Res16UNet34C(classes, NetworkSettings(), momentum=0.05)
    net.load_state_dict(formula_weights(net))
    return net.to(dtype).train(mode == "train")


def run(classes: int, mode: str, golden: dict[str, np.ndarray], cloud: str, dtype: torch.dtype = torch.float64):
    net = network(classes, mode, dtype)
    features = torch.from_numpy(golden[f"{cloud}__feats"]).to(dtype).requires_grad_()
    taps: dict[str, np.ndarray] = {}
    names = [str(n) for n in golden.get(f"{cloud}__tap_names", [])]
    for name in names:
        net.get_submodule(name).register_forward_hook(
            # The network's ReLU works in place, so taps are copied.
            lambda _m, _i, out, name=name: taps.__setitem__(name, out.F.detach().numpy().copy())
        )
    out = net(SparseTensor(features, torch.from_numpy(golden[f"{cloud}__coords"]).int()))
    return net, features, out.F, taps


def test_weights_by_formula_are_those_of_the_vectors() -> None:
    net = network(32, "eval")
    assert list(net.state_dict()) == [str(k) for k in SMALL["state_dict_keys"]]
    for number, value in enumerate(net.state_dict().values()):
        flat = value.double().reshape(-1)
        assert abs(float(flat.sum()) - SMALL["weight_check_sum_f64"][number]) < 1e-4 * max(1, float(flat.abs().sum()))


SLOW = pytest.mark.slow  # the networks have full width
ALL_OUTPUTS = [(c, m, n) for c in ("small", "room") for m in ("eval", "train") for n in (20, 32)]
FAST_OUTPUTS = {("small", "eval", 20), ("room", "train", 20), ("small", "train", 32)}
"""Both clouds, both modes, both widths of the last layer, and the taps in both modes."""


@pytest.mark.parametrize(
    ("cloud", "mode", "classes"),
    [pytest.param(*case, marks=() if case in FAST_OUTPUTS else SLOW) for case in ALL_OUTPUTS],
)
def test_outputs_and_taps(cloud: str, mode: str, classes: int, request: pytest.FixtureRequest) -> None:
    _, golden = request.getfixturevalue(cloud)
    _, _, out, taps = run(classes, mode, golden, cloud)
    expected = golden[f"{cloud}__out{classes}_{mode}_sample"]
    found = out.detach().numpy()
    assert np.abs(found[golden[f"{cloud}__sample_rows"]] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.allclose(found.mean(0), golden[f"{cloud}__out{classes}_{mode}_mean_per_channel_f64"], atol=1e-5)
    if classes == 20:
        shapes, numbers = golden[f"{cloud}__tap_{mode}_nvox_nchan"], golden[f"{cloud}__tap_{mode}_mean_abssum_rms_f64"]
        names = [str(n) for n in golden[f"{cloud}__tap_names"]]
        for name, shape, (_, absolute, rms) in zip(names, shapes, numbers, strict=True):
            assert taps[name].shape == tuple(shape), name
            assert np.isclose(np.abs(taps[name]).sum(), absolute, rtol=1e-5), name
            assert np.isclose(np.sqrt((taps[name] ** 2).mean()), rms, rtol=1e-5), name


@pytest.mark.parametrize(
    ("cloud", "mode"),
    [
        ("small", "train"),
        *(pytest.param(*c, marks=SLOW) for c in (("small", "eval"), ("room", "eval"), ("room", "train"))),
    ],
)
def test_gradients(cloud: str, mode: str, request: pytest.FixtureRequest) -> None:
    _, golden = request.getfixturevalue(cloud)
    net, features, out, _ = run(20, mode, golden, cloud)
    weight = torch.from_numpy(formula(1000, out.numel()).reshape(out.shape))
    loss = (out * weight).sum() / len(out)
    loss.backward()
    prefix = f"{cloud}__grad_{mode}"
    assert np.isclose(float(loss.detach()), golden[f"{prefix}_loss_f64"], rtol=1e-6)
    parameters = dict(net.named_parameters())
    for name, norm in zip(golden[f"{prefix}_param_names"], golden[f"{prefix}_param_norms_f64"], strict=True):
        assert np.isclose(float(parameters[str(name)].grad.norm()), norm, rtol=1e-6, atol=1e-12), name
    expected = golden[f"{prefix}_input_sample"]
    found = features.grad.numpy()[golden[f"{cloud}__sample_rows"]]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    for key, name in (("conv0p1s1_kernel", "conv0p1s1.kernel"), ("final_bias", "final.bias")):
        expected = golden[f"{prefix}_{key}"]
        assert np.abs(parameters[name].grad.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_running_statistics_show_the_momentum_of_each_norm() -> None:
    net, *_ = run(20, "train", SMALL, "small")
    buffers = dict(net.named_buffers())
    names = [k.removeprefix("small__after_train__") for k in SMALL if k.startswith("small__after_train__")]
    assert len(names) == 10
    for name in names:
        assert np.allclose(buffers[name].numpy(), SMALL[f"small__after_train__{name}"], rtol=1e-5, atol=1e-6), name


def test_single_precision_is_close_enough() -> None:
    _, _, out, _ = run(20, "eval", SMALL, "small", torch.float32)
    expected = SMALL["small__out20_eval_sample"]
    assert np.abs(out.detach().numpy()[SMALL["small__sample_rows"]] - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.manual_seed(0)
    yield
