"""Records to data frames, and the statistics of them."""
