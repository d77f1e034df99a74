"""Figures for papers: one style, one plot a function."""
