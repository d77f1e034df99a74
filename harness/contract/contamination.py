"""Compute from specs alone which scenes of a fine-tuning its pre-training had seen."""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_bench.benchmarks.datasets.contamination import Contamination, SeenScenes, contamination
from pretrain_bench.harness.contract.stage import StageSpec

SCRATCH = "scratch"
"""The only method without data whose weights do not come from elsewhere."""


def contamination_of(
    spec: StageSpec, behind: Iterable[StageSpec], stated: tuple[str, ...] | None = None
) -> Contamination | None:
    """The contamination of a fine-tuning by the pre-training stages `behind` it; None for a stage without a split.

    A pre-training stage without data and parents brought weights from elsewhere, except for scratch. Their scenes are those in
    its spec, else those that the user stated (`stated`), else unknown. Raises WrongUse for a statement in no known form.
    """
    if spec.split is None or spec.data is None:
        return None
    stages = [s for s in behind if s.kind == "pretrain"]
    seen = [
        SeenScenes(s.data.dataset, s.data.synthetic, s.data.scenes, s.data.view == "labelled") for s in stages if s.data
    ]
    return contamination(seen, _statement(stages, stated), spec.split, spec.data.dataset, spec.data.synthetic)


def _statement(stages: Iterable[StageSpec], stated: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The scenes stated for all weights from elsewhere; None if some weights have no statement."""
    items: tuple[str, ...] = ()
    for stage in stages:
        brought = stage.data is None and not stage.parents and stage.method != SCRATCH
        of_stage = stage.pretrained_on if stage.pretrained_on is not None else stated if brought else ()
        if of_stage is None:
            return None
        items += of_stage
    return items
