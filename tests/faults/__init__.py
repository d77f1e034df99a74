"""Stages that only sleep, and what happens when things are killed around them."""
