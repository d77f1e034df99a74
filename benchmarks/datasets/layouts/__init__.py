"""Readers of common layouts other than the official ones, one module each, and their registry."""
