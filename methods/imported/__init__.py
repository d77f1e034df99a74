"""Checkpoints from elsewhere as a method: read, matched to the network, put into this project's layout; and the way back."""
