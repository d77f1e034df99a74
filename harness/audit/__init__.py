"""Checks of somebody's results: what the files say (static), scores again (rescore), runs again (rerun), bundles."""
