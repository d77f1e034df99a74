"""The folder of runs: reading, publishing, bundles, the chain of hashes, retention, and provenance."""
