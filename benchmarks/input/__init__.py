"""What networks take in: voxels, augmentation, boxes, and the input of the detector."""
