"""Supervised pre-training (spec E.6c): semantic segmentation with all labels of the pre-training dataset."""
