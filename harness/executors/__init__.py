"""Ways to run one stage under the container contract."""
