"""Contrastive Scene Contexts (spec C.1): PointContrast's pairs, with negatives grouped by their position around the anchor."""
