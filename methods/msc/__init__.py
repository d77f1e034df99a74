"""Masked Scene Contrast (spec 1): contrast two masked views of one scan, and predict the masked colours."""
