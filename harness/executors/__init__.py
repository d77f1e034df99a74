"""Executors, which run one stage under the container contract, and the images that they use."""
