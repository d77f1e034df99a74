"""Labels of containers: whether the process that started one has ended."""

from __future__ import annotations

import os

import pytest

from pretrain_bench.harness.executors.container_owner import has_ended, owner


def test_a_label_tells_whether_its_process_has_ended() -> None:
    label = owner(os.getpid())
    space, pid, started = label.rsplit(":", 2)
    assert not has_ended(label)
    assert has_ended(f"{space}:{pid}:{float(started) - 60:.2f}"), "another process has taken its number since"
    assert has_ended(f"{space}:{2**22 + 1}:{started}"), "numbers end below this one"


@pytest.mark.parametrize(
    "label", ["", "x", "1:2", "elsewhere/boot/pid:[1]:1:1.00", "{space}:x:1.00", "{space}:1:x", "{space}:{pid}:nan"]
)
def test_of_a_process_elsewhere_nothing_is_known(label: str) -> None:
    space, pid, _ = owner(os.getpid()).rsplit(":", 2)
    assert not has_ended(label.replace("{space}", space).replace("{pid}", pid))
