"""Turn records into data frames, statistics, tables, figures and a page."""
