"""The baseline without pre-training: seeded initial weights, evaluated in the same way as every other method."""
