"""Source of the pre-training data: the dataset of the task itself, or another (the paper's section V-A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis.columns import NO_DATASET
from pretrain_bench.reports.analysis.published import dataset_family

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "pre-trained on"
SAME, OTHER = "the task's dataset", "another dataset"


def with_source(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects of methods pre-trained on data, with the column `pre-trained on`: SAME for the task's dataset or its synthetic
    stand-in, else OTHER."""
    known = effects[effects["pretrain_dataset"] != NO_DATASET]
    pairs = zip(known["pretrain_dataset"], known["dataset"], strict=True)
    same = [dataset_family(source) == dataset_family(target) for source, target in pairs]
    return known.assign(**{SOURCE: np.where(same, SAME, OTHER)})
