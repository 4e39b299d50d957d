"""Attention-guided probabilistic masking, as its formulas say."""

import itertools
import math

import numpy as np


def probabilities(importance: np.ndarray, temperature: float, normalize: str = "max") -> np.ndarray:
    """softmax(z / temperature) over one pool; z = importance / max, or its z-score."""
    if normalize == "max":
        relative = [v / max(importance) for v in importance]
    else:
        mean = sum(importance) / len(importance)
        spread = math.sqrt(sum((v - mean) ** 2 for v in importance) / len(importance))
        relative = [(v - mean) / spread for v in importance]
    scores = [math.exp(z / temperature) for z in relative]
    return np.array([score / sum(scores) for score in scores])


def inclusion(probability: np.ndarray, count: int) -> np.ndarray:
    """How likely each item is among `count` drawn one after the other without replacement."""
    hidden = np.zeros(len(probability))
    for order in itertools.permutations(range(len(probability)), count):
        chance, left = 1.0, 1.0
        for item in order:
            chance *= probability[item] / left
            left -= probability[item]
        for item in order:
            hidden[item] += chance
    return hidden


def stretches(values: np.ndarray, length: int) -> np.ndarray:
    """(T, V) to the means (G, V) over stretches of `length` frames; the last may be shorter."""
    return np.array([values[t : t + length].mean(axis=0) for t in range(0, len(values), length)])
