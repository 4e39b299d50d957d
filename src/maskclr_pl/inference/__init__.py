"""Predictions for files of poses, and models exported to one file."""
