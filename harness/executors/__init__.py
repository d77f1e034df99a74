"""Executors, which run one stage under the container contract, and their images."""
