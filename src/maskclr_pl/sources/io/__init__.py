"""Bounded reading of files of unknown origin."""
