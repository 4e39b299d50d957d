"""Prediction for pose files, and export of trained classifiers to a single file."""
