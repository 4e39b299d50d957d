"""Losses as their formulas say, in double precision."""

import math

import numpy as np


def _cos(u: np.ndarray, v: np.ndarray) -> float:
    lengths = math.sqrt(float(u @ u)) * math.sqrt(float(v @ v))
    return float(u @ v) / lengths if lengths else 0.0


def cross_entropy(logits: np.ndarray, label: np.ndarray, smoothing: float = 0.0) -> float:
    """Mean over clips of -sum_k q_k log p_k, q the smoothed one-hot target."""
    total = 0.0
    for row, k in zip(logits.astype(np.float64), label, strict=True):
        target = np.full(len(row), smoothing / len(row))
        target[k] += 1 - smoothing
        log_p = row - row.max() - math.log(sum(math.exp(v - row.max()) for v in row))
        total -= float(target @ log_p)
    return total / len(label)


def nt_xent(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    """SimCLR: each row against its pair among all other rows of both views."""
    rows = [*a.astype(np.float64), *b.astype(np.float64)]
    n, total = len(a), 0.0
    for i, u in enumerate(rows):
        pair = (i + n) % (2 * n)
        below = sum(math.exp(_cos(u, v) / tau) for j, v in enumerate(rows) if j != i)
        total -= math.log(math.exp(_cos(u, rows[pair]) / tau) / below)
    return total / (2 * n)


def class_nt_xent(
    a: np.ndarray, b: np.ndarray, label: np.ndarray, tau: float, normalize: bool
) -> float:
    """NT-Xent between class means: the mean over classes k and views p."""
    centres = []
    for view in (a.astype(np.float64), b.astype(np.float64)):
        means = {}
        for k in sorted(set(label.tolist())):
            members = [row for row, y in zip(view, label, strict=True) if y == k]
            if normalize:
                members = [row / (math.sqrt(float(row @ row)) or 1.0) for row in members]
            means[k] = sum(members) / len(members)
        centres.append(means)
    terms = []
    for k in centres[0]:
        positive = math.exp(_cos(centres[0][k], centres[1][k]) / tau)
        for p in (0, 1):
            others = sum(
                math.exp(_cos(centres[p][k], centres[q][other]) / tau)
                for other in centres[0]
                if other != k
                for q in (0, 1)
            )
            terms.append(-math.log(positive / (positive + others)))
    return sum(terms) / len(terms)


def supervised_contrast(
    a: np.ndarray, b: np.ndarray, label: np.ndarray, tau: float, base: float | None = None
) -> float:
    """Khosla et al. 2020, L_out, with the rows of both views as anchors."""
    rows = [*a.astype(np.float64), *b.astype(np.float64)]
    labels = [*label.tolist(), *label.tolist()]
    total = 0.0
    for i, u in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        below = sum(math.exp(_cos(u, rows[j]) / tau) for j in others)
        same = [j for j in others if labels[j] == labels[i]]
        total -= sum(math.log(math.exp(_cos(u, rows[j]) / tau) / below) for j in same) / len(same)
    return total / len(rows) * tau / (base or tau)
