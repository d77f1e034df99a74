"""PointContrast (spec B): matching points of two overlapping, separately rotated frames learn equal features."""
