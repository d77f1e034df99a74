"""Readers of the layouts that people have already, beside the official ones: one module each, and their registry."""
