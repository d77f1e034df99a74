"""Plans, runs, isolates and records. No torch here, so that the command line answers at once."""
