"""Readers of the official layouts, the prepared form, and the views that a stage sees."""
