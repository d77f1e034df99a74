"""Columns of the frame of runs by which tables, figures and tests group."""

from __future__ import annotations

GROUP = ["task", "dataset", "synthetic", "protocol", "label_ratio", "budget", "profile", "conditions"]
"""Runs are compared only within one group. `synthetic` is about the task's data: a method pre-trained on synthetic data is
compared with scratch on the same real task, and its row says so. `conditions` hashes what these names do not cover: the fine-
tuning recipe, limits, network, data, split and code."""

ACROSS_RATIOS = ["task", "dataset", "synthetic", "protocol", "budget", "profile", "family"]
"""Like GROUP, but across label ratios: `family` hashes the conditions without the ratio, and of the split only its version and
test scenes."""

CONDITIONS = [
    "family", "label_percent", "metric", "train_scenes", "held_out_scenes", "test_scenes", "mean_over", "voxel_metres",
    "part_of_test_split", "network_width",
]  # fmt: skip
"""Columns that all runs of a group share besides GROUP: the numbers of scenes for training, checkpoint selection and testing, the
number of classes in the headline metric's mean, the voxel size, the scored test scenes as text if they are not the whole test
split, and the network's width."""

CONTAMINATION = ["contamination", "contamination_mark"]
"""Contamination of a run's test scenes: the flag, and its text in tables."""

ROW = ["method", "pretrain_dataset", "pretraining"]
"""Runs that share these are averaged over seeds. `pretraining` hashes the pre-training stages without their seeds, and the
tensors that they transfer (`transfer`). The column `row` holds the printed name, which is the same in every table."""

OF_ROW = ["pretrain_synthetic", "published_as"]
"""Columns that all runs of a row share besides ROW: whether it was pre-trained on synthetic data, and its name in the paper."""

STEPS = ["pretrain_steps", "finetune_steps"]
"""Optimiser steps of a run and of its pre-training; a row has those of its shortest run."""

UNIT = "pretrain_seed"
"""The unit of inference of a pre-training effect; fine-tuning seeds of one pre-training are averaged first."""

PLOTTED = [
    "row", *ROW, UNIT, "label_percent", "outcome", "metric", "checkpoint", "score_final", "score_selected", "score_best",
]  # fmt: skip
"""Columns of the runs that figures of scores read. Only these go to the process that draws: all take ten times the memory."""

NO_DATASET = "none"
"""The pre-training dataset of a cell that was pre-trained on no data."""
