"""`python -m pretrain_bench` is `bench`."""

from __future__ import annotations

import sys

# Python puts the working folder first on the path, where a user's own torch.py or numpy.py would be imported for the library.
if not sys.flags.safe_path:
    del sys.path[0]

from pretrain_bench.harness.cli.app import main

main()
