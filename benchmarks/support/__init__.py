"""Errors, locks, files and worker processes."""
