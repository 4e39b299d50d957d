"""Loggers of a run: W&B, TensorBoard, CSV, and the dashboard of a W&B project."""
