"""Figures, drawn with matplotlib and Pillow and written to files."""
