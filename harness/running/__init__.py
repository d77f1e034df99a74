"""Runs stages: the scheduler of many, the runner of one, the checks of what it left."""
