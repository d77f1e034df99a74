"""The output folder of a report, and export of runs to other tools."""
