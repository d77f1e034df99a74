"""The baseline without pre-training: seeded initial weights, on the same path as every other method."""
