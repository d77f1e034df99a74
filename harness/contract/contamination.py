"""What the pre-training behind a fine-tuning had seen of its scenes, from their specs alone."""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_bench.benchmarks.datasets.contamination import Contamination, SeenScenes, contamination
from pretrain_bench.harness.contract.stage import StageSpec

SCRATCH = "scratch"
"""The one method without data whose weights come from nowhere else."""


def contamination_of(
    spec: StageSpec, behind: Iterable[StageSpec], stated: tuple[str, ...] | None = None
) -> Contamination | None:
    """The contamination of a fine-tuning by its pre-training, of the stages `behind` it; None for a stage without a split.

    A pre-training stage that reads no data and starts from no other stage brought its weights along, unless it is scratch:
    its spec states the scenes, or else the user did (`stated`), or they are unknown. Raises WrongUse for a statement of no known
    form.
    """
    if spec.split is None or spec.data is None:
        return None
    stages = [s for s in behind if s.kind == "pretrain"]
    seen = [
        SeenScenes(s.data.dataset, s.data.synthetic, s.data.scenes, s.data.view == "labelled") for s in stages if s.data
    ]
    return contamination(seen, _statement(stages, stated), spec.split, spec.data.dataset, spec.data.synthetic)


def _statement(stages: Iterable[StageSpec], stated: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What is stated of all weights that were brought along; None where nothing is stated of some."""
    items: tuple[str, ...] = ()
    for stage in stages:
        brought = stage.data is None and not stage.parents and stage.method != SCRATCH
        of_stage = stage.pretrained_on if stage.pretrained_on is not None else stated if brought else ()
        if of_stage is None:
            return None
        items += of_stage
    return items
