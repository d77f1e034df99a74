"""Imported checkpoints as a method: read a file, match it to the network, convert it to this project's layout; and export."""
