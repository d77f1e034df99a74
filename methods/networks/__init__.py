"""Networks: the 3D backbone, the heads of the tasks, PointNet++ and the 2D encoder-decoder."""
