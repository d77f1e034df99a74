"""Does pre-training help a 3D network, by how much, and how sure are we? Equal budgets, recorded runs, honest numbers."""
