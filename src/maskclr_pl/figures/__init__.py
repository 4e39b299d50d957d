"""Figures, written to files."""
