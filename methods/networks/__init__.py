"""Networks: the 3D backbone and the 2D encoder-decoder."""
