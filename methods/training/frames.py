"""The frames that a stage learns from."""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.views import list_frames
from pretrain_bench.methods.context import StageContext


def frames_of(context: StageContext) -> list[tuple[str, int]]:
    """(scene, index) of each frame of the stage's scenes. Warns of scenes without frames; raises DataError if all have none."""
    assert context.spec.data is not None
    scenes = context.spec.data.scenes
    frames = list_frames(context.view, scenes)
    without = len(scenes) - len({scene for scene, _ in frames})
    if without:
        context.warn(f"{without:,} of the {len(scenes):,} scenes have no frames and are not used")
    return frames
