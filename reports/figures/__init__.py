"""Figures for papers: one style, one plot a module. Every run is a point, and intervals appear only where n allows them."""
