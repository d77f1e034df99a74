"""Places where stages run: this machine, or a cluster that runs them as jobs."""
