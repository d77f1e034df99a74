"""The demand of a stage, within the capacity of a machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity, Demand, demand, gpu_ids


def test_a_stage_takes_its_caps_or_what_belongs_to_its_gpus(cells: list[PlannedCell]) -> None:
    on_cpu = cells[0].stages[0]
    stage = on_cpu._replace(spec=on_cpu.spec.model_copy(update={"device": "cuda"}))
    assert demand(stage, Capacity(8, 1 << 20, ("0", "1"))).gpus == 1
    uncapped = stage._replace(caps=stage.caps.model_copy(update={"memory_mib": None}))
    assert demand(uncapped, Capacity(8, 1 << 20, ("0", "1"))).memory_mib == 1 << 19, "its GPU's share"
    assert demand(uncapped._replace(spec=on_cpu.spec), Capacity(8, 1 << 20)).memory_mib == 1 << 20
    assert demand(on_cpu, Capacity(0, 100)) == (0, 100, 0), "cut to the machine"


def test_the_number_of_stages_that_a_machine_holds() -> None:
    machine = Capacity(8, 1000, ("0", "1"))
    assert machine.holds(Demand(2, 10, 0)) == 4, "by processors"
    assert machine.holds(Demand(1, 400, 0)) == 2, "by memory"
    assert machine.holds(Demand(1, 10, 1)) == 2 and machine.holds(Demand(1, 10, 0.5)) == 4, "by GPUs"
    assert machine.holds(Demand(9, 10, 0)) == 0


def with_gpus(monkeypatch: pytest.MonkeyPatch, uuids: list[str | None]) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(uuids))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: SimpleNamespace(uuid=uuids[i]))


def test_gpus_are_those_that_cuda_offers_whatever_their_device_files_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with_gpus(monkeypatch, ["aa-01", "GPU-bb-02"])
    assert gpu_ids() == ("GPU-aa-01", "GPU-bb-02")
    with_gpus(monkeypatch, [None])  # a container with only /dev/nvidia3, and a torch without UUIDs
    assert gpu_ids() == ("0",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    with_gpus(monkeypatch, ["dd-04", "bb-02"])
    assert gpu_ids() == ("GPU-dd-04", "GPU-bb-02"), "the numbers are the machine's, in an order that CUDA knows"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-x, MIG-y,MIG-z")
    assert gpu_ids() == ("MIG-x", "MIG-y"), "parts of GPUs keep their names; the third does not exist"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with_gpus(monkeypatch, [])
    assert gpu_ids() == ()
