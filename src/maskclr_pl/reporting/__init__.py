"""Comparison of runs: statistics, tables, one HTML page, the table of the paper."""
