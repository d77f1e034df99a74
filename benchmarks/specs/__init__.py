"""Specs as frozen pydantic models, one kind per file, and their YAML loader."""
