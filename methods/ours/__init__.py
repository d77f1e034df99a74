"""Ours: image features distilled into a point network from single RGB-D scans (spec, part E)."""
