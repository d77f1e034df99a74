"""What the long verifications left behind still speaks of this code; and the GPU verification works where it can be tried."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pretrain_bench.harness.planning.code_digest import digest
from tests.verification import gpu
from tests.verification.report import FOLDER, ROOT

TARGETS = re.findall(r"^verify-([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
DECLARED = yaml.safe_load((FOLDER / "declared.yaml").read_text()) or {}


def test_make_verify_runs_every_verification() -> None:
    line = re.search(r"^verify:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line and sorted(line[1].split()) == sorted(f"verify-{name}" for name in TARGETS)
    assert {"minkowski", "gpu"} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_report_is_there_and_fresh(name: str) -> None:
    path = FOLDER / f"{name}.json"
    assert path.is_file(), f"{path.name} is missing: run `make verify-{name}` and commit what it writes"
    report = json.loads(path.read_text())
    assert report["verdict"] in ("ok", "not run"), f"{path.name}: {report['verdict']}"
    if report["verdict"] == "not run":
        assert report["why"]
        return
    now = digest(report["code_of"])
    declared = DECLARED.get(name, {})
    assert now in (report["code_sha256"], declared.get("code_sha256")), (
        f"{path.name} speaks of other code ({', '.join(report['code_of'])} and what they import): run `make verify-{name}` "
        f"again, or declare in {FOLDER.name}/declared.yaml that the difference does not matter:\n"
        f"{name}:\n  code_sha256: {now}\n  why: ..."
    )
    assert not declared or len(declared["why"]) > 20


def test_gpu_parity_holds_on_the_cpu() -> None:
    torch.manual_seed(0)
    assert gpu.operation_parity("cpu") <= gpu.BOUNDS["operations"]
    assert gpu.network_parity("cpu") <= gpu.BOUNDS["network"]


def test_bf16_and_fp32_learn_alike() -> None:
    one, two = gpu.curve("cpu", "fp32", 1500, 20), gpu.curve("cpu", "bf16", 1500, 20)
    assert one[-1] < 0.8 * one[0]
    assert one != two
    assert gpu.curve_difference(one, two) <= 0.05


def test_gpu_verification_needs_torch_and_numpy_only(tmp_path: Path) -> None:
    absent = {"pydantic", "pydantic_core", "yaml", "typer", "tqdm", "scipy", "pandas", "PIL", "psutil", "plyfile", "safetensors",
              "rich", "pytest", "matplotlib", "seaborn"}  # fmt: skip
    for entry in Path(torch.__file__).parent.parent.iterdir():
        if entry.name.removesuffix(".py") not in absent and not entry.name.endswith((".pth", ".dist-info")):
            (tmp_path / entry.name).symlink_to(entry)
    code = "from tests.verification import gpu; print(gpu.curve('cpu', 'fp32', 300, 1), gpu.operation_parity('cpu'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-S", "-c", "import pydantic"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode, "the trial is a trial"
