"""DepthContrast (spec D): each scan is its own class; momentum encoders and queues, in point and voxel format."""
