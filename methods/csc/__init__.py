"""Contrastive Scene Contexts (spec C.1): PointContrast's pairs, with negatives sorted by where they lie around the anchor."""
