"""Masked Scene Contrast (further spec 1): two masked views of one scan are contrasted, and masked colours predicted."""
