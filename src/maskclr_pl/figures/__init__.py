"""Figures, drawn with matplotlib and Pillow and written to files.

Drawing functions write `path`, a PNG, and an SVG next to it, unless they say otherwise.
"""
