"""PointContrast (spec B): two frames that see one place, turned apart; points that match must have matching features."""
