"""Numbers about numbers: rows, ranks, intervals, significance."""
