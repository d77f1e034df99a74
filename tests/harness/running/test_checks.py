"""Checks of pre-training artifacts: complete, finite, right shapes, undamaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.harness.running.checks import InvalidOutput, check_pretrain
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from tests.harness.store.test_store import spec

SPEC = spec().model_copy(update={"network": NetworkSettings(width=0.125)})


def backbone() -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in seeded_backbone(5, SPEC.network, 0.1, "torch", 1).state_dict().items()}


def check(folder: Path, tensors: dict[str, np.ndarray], last: bool = True) -> None:
    save_file(tensors, folder / "backbone.safetensors")
    check_pretrain(SPEC, folder, last)


def test_a_whole_backbone_passes(tmp_path: Path) -> None:
    check(tmp_path, backbone())
    headless = {k: v for k, v in backbone().items() if not k.startswith("final.")}
    check(tmp_path, headless)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("block3.1.conv2.kernel"), "'block3.1.conv2.kernel' is missing"),
        (
            lambda t: t.update({"bn0.bn.weight": np.zeros(5, np.float32)}),
            r"'bn0.bn.weight' has shape \(5,\), expected \(4,\)",
        ),
        (
            lambda t: t["conv0p1s1.kernel"].__setitem__((0, 0, 0), np.nan),
            "'conv0p1s1.kernel' has 1 non-finite values",
        ),
        (lambda t: t.update({"head.weight": np.zeros(2, np.float32)}), "unknown tensor 'head.weight'"),
        (lambda t: t.update({"bn0.bn.weight": np.zeros(4, np.int8)}), "Input should be 'F16', 'F32', 'F64' or 'I64'"),
    ],
)
def test_a_spoilt_backbone_is_named(tmp_path: Path, spoil, message: str) -> None:
    tensors = backbone()
    spoil(tensors)
    with pytest.raises(InvalidOutput, match=message):
        check(tmp_path, tensors)


def test_nothing_and_damage(tmp_path: Path) -> None:
    with pytest.raises(InvalidOutput, match="left no .safetensors"):
        check_pretrain(SPEC, tmp_path, False)
    path = tmp_path / "backbone.safetensors"
    save_file(backbone(), path)
    whole = path.read_bytes()
    for content in (
        whole[:-1],
        whole + b"x",
        whole[:5],
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidOutput, match="not a safetensors file"):
            check_pretrain(SPEC, tmp_path, True)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InvalidOutput, match="not a safetensors file"):
        check_pretrain(SPEC, tmp_path, True)


def test_an_early_stage_owes_no_backbone(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "image_network.safetensors")
    check_pretrain(SPEC, tmp_path, False)
    with pytest.raises(InvalidOutput, match="no artifacts/backbone.safetensors"):
        check_pretrain(SPEC, tmp_path, True)


def test_hostile_headers_end_as_invalid_output(tmp_path: Path) -> None:
    def write(header: object, data: bytes = b"") -> None:
        text = json.dumps(header).encode()
        (tmp_path / "backbone.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)

    for header in (
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}},
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, 4]}},
        {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
        {"a": 5},
        {"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}},
    ):
        write(header, b"\0" * 4)
        with pytest.raises(InvalidOutput):
            check_pretrain(SPEC, tmp_path, True)
