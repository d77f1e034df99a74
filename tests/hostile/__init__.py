"""Stages that misbehave, in real sandboxes (docs/security.md)."""
