"""The demand of a stage, within the capacity of a machine."""

from __future__ import annotations

import pytest

from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity, demand, gpu_ids


def test_a_stage_takes_its_caps_or_what_belongs_to_its_gpus(cells: list[PlannedCell]) -> None:
    on_cpu = cells[0].stages[0]
    stage = on_cpu._replace(spec=on_cpu.spec.model_copy(update={"device": "cuda"}))
    assert demand(stage, Capacity(8, 1 << 20, ("0", "1"))).gpus == 1
    uncapped = stage._replace(caps=stage.caps.model_copy(update={"memory_mib": None}))
    assert demand(uncapped, Capacity(8, 1 << 20, ("0", "1"))).memory_mib == 1 << 19, "its GPU's share"
    assert demand(uncapped._replace(spec=on_cpu.spec), Capacity(8, 1 << 20)).memory_mib == 1 << 20
    assert demand(on_cpu, Capacity(0, 100)) == (0, 100, 0), "cut to the machine"


def test_cuda_visible_devices_names_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc")
    assert gpu_ids() == ("2", "GPU-abc")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_ids() == ()
