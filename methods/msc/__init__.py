"""Masked Scene Contrast (spec 1): two masked views of one scan are contrasted, and masked colours predicted."""
