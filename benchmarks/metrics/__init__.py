"""Compute scores from labels and predictions, in numpy alone; no network is needed."""
