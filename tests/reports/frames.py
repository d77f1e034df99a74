"""Handmade data frames of runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

METHODS = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")


def runs_of(scores: dict[str, np.ndarray], budget: str = "b") -> Any:
    """Runs as read from a store, from scores (tasks, pre-training seeds) in per cent of each method; NaN for a failed run."""
    rows = []
    for method, table in scores.items():
        for (task, seed), score in np.ndenumerate(table):
            rows.append(
                {
                    "task": f"task{task}", "dataset": "d", "synthetic": False, "label_ratio": "100%", "label_percent": 100.0,
                    "metric": "miou_voxel", "train_scenes": 9, "held_out_scenes": 1, "test_scenes": 2, "mean_over": 5, "voxel_metres": 0.05,
                    "part_of_test_split": "", "network_width": 1.0, "published_as": method, "pretrain_steps": 600, "finetune_steps": 300, "contamination": "none", "contamination_mark": "",
                    "pretrain_synthetic": False, "budget": budget, "profile": "p",
                    "protocol": "finetune", "conditions": f"{task}", "family": f"{task}", "method": method, "row": method, "checkpoint": "selected", "pretrain_dataset": "e", "pretraining": method, "pretrain_seed": seed,
                    "finetune_seed": 0, "outcome": "ok" if np.isfinite(score) else "crashed", "score_selected": score / 100,
                    "score_final": score / 100, "features_key": "", "features_cpu_seconds": 0.0, "features_gpu_seconds": 0.0,
                    "features_gpu_joules": 0.0,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def planted_scores(tasks: int, seeds: int, gains: dict[str, float], shared: float) -> dict[str, np.ndarray]:
    """Scores of methods: a pre-training shifts all its tasks by a draw of standard deviation `shared` points, a run by 0.3."""
    rng = np.random.default_rng(20261126)
    level = 40 + 5 * np.arange(tasks)[:, None]
    return {
        m: level + gains.get(m, 0.0) + rng.normal(0, shared, (1, seeds)) + rng.normal(0, 0.3, (tasks, seeds))
        for m in METHODS
    }
