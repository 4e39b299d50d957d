"""Experiment tracking: W&B, TensorBoard and CSV loggers, and a W&B dashboard."""
