"""What holds for all sizes: the very functions that `impl` runs, read by a solver over symbolic words."""
