"""Run stages: the scheduler of all stages, the runner of one stage, and the checks of its output."""
