"""Accuracy under corruptions, adversarial perturbations and with another pose estimator."""
