"""Audits of recorded results: checks of files (static), re-scoring (rescore), re-running (rerun), and bundles (pack, bundle)."""
