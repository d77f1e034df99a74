"""The training loop, with its schedules, checkpoints, data loading and losses."""
