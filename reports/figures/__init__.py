"""Figures for papers in one style, one plot per module. Every run is a point; intervals appear only if n allows them."""
