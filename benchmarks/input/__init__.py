"""Network inputs: voxels, augmentation, boxes, and the input of the detector."""
