"""The machine in a record."""

from __future__ import annotations

import platform

import pytest

from pretrain_bench.harness.store import provenance


def test_machines_that_share_a_name_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of a pool often share a name."""
    monkeypatch.setattr(platform, "node", lambda: "worker")
    here = provenance._static.__wrapped__()
    assert here.machine == provenance._static.__wrapped__().machine
    monkeypatch.setattr(provenance, "cpu_name", lambda: "another processor")
    there = provenance._static.__wrapped__()
    assert here.machine != there.machine and "worker" not in there.model_dump_json()
