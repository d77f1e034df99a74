"""Places where stages run: this machine, or a cluster that takes them as jobs."""
