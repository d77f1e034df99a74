"""The Triton kernels without a GPU: correct in the interpreter, compiled without register spills."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from pretrain_bench.methods.sparse import implicit_gemm, tiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None and not os.environ.get("BENCH_REQUIRE_TRITON"),
        reason="Triton is not installed: pip install 'pretrain-bench[triton]'",
    ),
]


def check(name: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "tests.methods.triton_checks", name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_interpreter_agrees_with_torch_and_repeats() -> None:
    result = check("interpret", TRITON_INTERPRET="1")
    print(result)
    assert result["repeats"]
    for name, apart in result["apart"].items():
        # Half precision rounds outputs at 5e-4; both sides sum in float32.
        assert apart < (2e-6 if name.endswith("float32") else 2e-3), name


def test_every_tile_compiles_for_three_generations_without_spills() -> None:
    rows = check("compile")
    assert len(rows) == (3 + 1) * (len(tiles.PRODUCT) + len(tiles.GRADIENT))
    for row in rows:
        print(row)
        assert row["spilled_bytes"] == 0, row
        assert row["shared_bytes"] <= 99 * 1024, row  # the limit per program on the smallest of these GPUs


def test_without_a_gpu_torch_makes_the_products() -> None:
    features = torch.zeros((1, 16))
    assert not implicit_gemm.is_interpreting()
    assert not implicit_gemm.usable(features, None)  # type: ignore[arg-type]
