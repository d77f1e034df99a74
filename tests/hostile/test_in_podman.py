"""In podman: each hostile stage ends within its limits with the right outcome, and the next run succeeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.harness.executors.engine import is_podman
from pretrain_bench.harness.executors.image_classic import build_classic
from pretrain_bench.harness.executors.image_source import ImageSource
from pretrain_bench.harness.executors.podman import user_limits
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from tests.hostile.cases import cases_in, check_case, check_system_calls
from tests.hostile.engines import BASE
from tests.hostile.sandboxes import InEngine

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("case", cases_in("podman"))
def test_a_hostile_stage(case: str, in_podman: InEngine, planned: PlannedStage, tmp_path: Path) -> None:
    check_case(in_podman, "podman", case, planned, tmp_path)


def test_system_calls_that_no_stage_needs_are_refused(
    in_podman: InEngine, planned: PlannedStage, tmp_path: Path
) -> None:
    check_system_calls(in_podman, planned, tmp_path)


def test_podman_builds_images_from_the_same_files(in_podman: InEngine) -> None:
    """With the arguments, labels and steps of `bench images build --engine podman`."""
    text = b"ARG BASE\nFROM $BASE\nCOPY words /words\nRUN cp /words /more\n"
    source = ImageSource(
        "bench-hostile:built", {"Dockerfile": text, "words": b"read me"}, {"BASE": BASE}, {"made": "by bench"}
    )
    steps: list[tuple[int, int]] = []
    list(build_classic(in_podman.engine, source, 600, lambda *step: steps.append(step)))
    try:
        image = in_podman.engine.images.get(source.tag)
        assert image.labels["made"] == "by bench" and image.id.startswith("sha256:") and steps
        output = in_podman.engine.containers.run(
            source.tag, ["cat", "/more"], remove=True, ulimits=user_limits(), network_mode="none"
        )
        assert output == b"read me" and is_podman(in_podman.engine)
    finally:
        in_podman.engine.images.remove(source.tag, force=True)
