"""Fault injection: suites of sleeping stages, whose processes are killed."""
