"""The run folder: what is in it, written and read."""
