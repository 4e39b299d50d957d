"""Accuracy on perturbed clips."""
