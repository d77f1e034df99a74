"""Columns of the frame of runs that tables, figures and tests group by."""

from __future__ import annotations

GROUP = ["task", "dataset", "synthetic", "protocol", "label_ratio", "budget", "profile", "conditions"]
"""Runs are compared only within one group. `synthetic` is about the task's data: a method pre-trained on synthetic data is
compared with scratch on the same real task, and its row says so. `conditions` hashes what these names do not cover: the fine-
tuning recipe, limits, network, data, split and code."""

ACROSS_RATIOS = ["task", "dataset", "synthetic", "protocol", "budget", "profile", "family"]
"""Like GROUP, over all label ratios: `family` hashes the conditions without the ratio, and only the version and test scenes of
the split."""

CONDITIONS = [
    "family", "label_percent", "metric", "train_scenes", "held_out_scenes", "test_scenes", "mean_over", "voxel_metres",
    "part_of_test_split", "network_width",
]  # fmt: skip
"""Columns that all runs of a group share besides GROUP: how many scenes trained, selected a checkpoint and tested, how
many classes the headline metric is a mean over, the edge of a voxel, the number of scored test scenes, in words, where
they are not the whole test split, and the width of the network."""

CONTAMINATION = ["contamination", "contamination_mark"]
"""Contamination of a run's test scenes: the flag, and its text in tables."""

ROW = ["method", "pretrain_dataset", "pretraining"]
"""Runs that share these are averaged over seeds. `pretraining` hashes the pre-training stages without their seeds, and
what they hand on (`transfer`). The column
`row` holds the printed name, which is the same in every table."""

OF_ROW = ["pretrain_synthetic", "published_as"]
"""Columns that all runs of a row share besides ROW: whether it was pre-trained on synthetic data, and what the paper
calls it."""

STEPS = ["pretrain_steps", "finetune_steps"]
"""Optimiser steps that a run and its pre-training took; a row has those of the run with the fewest."""

UNIT = "pretrain_seed"
"""The unit of inference of a pre-training effect; fine-tuning seeds of one pre-training are averaged first."""

PLOTTED = [
    "row", *ROW, UNIT, "label_percent", "outcome", "metric", "checkpoint", "score_final", "score_selected", "score_best",
]  # fmt: skip
"""Columns of the runs that figures of scores read. Only these go to the process that draws: all take ten times the memory."""

NO_DATASET = "none"
"""The pre-training dataset of a cell that was pre-trained on no data."""
