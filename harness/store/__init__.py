"""The folder of runs, its chain of hashes, what is kept, and what a record says about the machine."""
