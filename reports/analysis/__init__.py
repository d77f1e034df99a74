"""Records become data frames, and data frames statistics. Imports no tables, figures or pages."""
