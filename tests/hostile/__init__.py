"""Stages that misbehave, in real containers (docs/security.md)."""
