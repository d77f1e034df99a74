"""Resource usage of a stage, measured from outside."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.usage import GpuSampler


def test_a_gpu_is_sampled_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr("pretrain_bench.harness.executors.usage.time", SimpleNamespace(monotonic=lambda: next(clock)))
    memory, millijoules = iter([100, 300, 200]), iter([1000, 3000, 8500])
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        NVMLError=RuntimeError,
        nvmlDeviceGetHandleByIndex=lambda i: f"index {i}",
        nvmlDeviceGetHandleByUUID=lambda u: f"uuid {u}",
        nvmlDeviceGetUtilizationRates=lambda h: SimpleNamespace(gpu=50),
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=next(memory)),
        nvmlDeviceGetTotalEnergyConsumption=lambda h: next(millijoules),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    sampler = GpuSampler(("0",))
    for _ in range(3):
        sampler.sample()
    found = sampler.added_to(Measured(wall_seconds=5))
    assert (found.gpu_seconds, found.peak_gpu_memory_bytes, found.wall_seconds, found.gpu_joules) == (2.5, 300, 5, 7.5)


def test_a_gpu_that_does_not_tell_its_energy_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: object) -> int:
        raise RuntimeError("not supported")

    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        NVMLError=RuntimeError,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetUtilizationRates=lambda h: SimpleNamespace(gpu=100),
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=7),
        nvmlDeviceGetTotalEnergyConsumption=unsupported,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    sampler = GpuSampler(("0",))
    sampler.sample()
    sampler.sample()
    found = sampler.added_to(Measured())
    assert (found.peak_gpu_memory_bytes, found.gpu_joules) == (7, None)


def test_without_a_driver_nothing_is_measured() -> None:
    for ids in ((), ("0",)):
        sampler = GpuSampler(ids)
        sampler.sample()
        assert sampler.added_to(Measured()).peak_gpu_memory_bytes >= 0
    assert GpuSampler(()).added_to(Measured()) == Measured()
