"""Procedural worlds: rooms built from parts, seen by simulated sensors, written in the official layouts."""
