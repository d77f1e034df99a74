"""Records become data frames, statistics, tables, figures and a page."""
