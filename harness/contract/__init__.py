"""The interface between harness and stage: the stage's spec, its events, its record."""
