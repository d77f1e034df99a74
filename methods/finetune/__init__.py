"""Fine-tuning: the same code for every method."""
