"""Where a report is written, and curves for other tools."""
