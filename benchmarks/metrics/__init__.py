"""Scores from labels and predictions; plain numpy, no network needed."""
