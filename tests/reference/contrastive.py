"""AimCLR and CrosSCLR from their formulas: plain loops in double precision."""

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def logits(query: Rows, key: Rows, queue: Rows, tau: float) -> Rows:
    out = np.zeros((len(query), 1 + len(queue)))
    for b in range(len(query)):
        out[b, 0] = np.dot(query[b], key[b]) / tau
        for i in range(len(queue)):
            out[b, 1 + i] = np.dot(query[b], queue[i]) / tau
    return out


def cross_entropy(rows: Rows, targets: Rows) -> float:
    total = 0.0
    for row, target in zip(rows, targets, strict=True):
        highest = max(row)
        log_sum = highest + math.log(sum(math.exp(value - highest) for value in row))
        total -= sum(share * (value - log_sum) for value, share in zip(row, target, strict=True))
    return total / len(rows)


def softmax(rows: Rows) -> Rows:
    out = np.exp(rows - rows.max(1, keepdims=True))
    return out / out.sum(1, keepdims=True)


def positives(found: list[Rows], topk: int | None) -> list[set[int]]:
    """Slots of each clip: that of its key, and those nearest to each of the queries."""
    out = [{0} for _ in found[0]]
    for rows in found if topk else []:
        for b, row in enumerate(rows):
            order = sorted(range(1, len(row)), key=lambda slot: -row[slot])
            out[b].update(order[:topk])
    return out


def uniform(slots: list[set[int]], width: int) -> Rows:
    out = np.zeros((len(slots), width))
    for b, chosen in enumerate(slots):
        for slot in chosen:
            out[b, slot] = 1 / len(chosen)
    return out


def aimclr(
    query: Rows, extreme: Rows, dropped: Rows, key: Rows, queue: Rows, tau: float, topk: int | None
) -> dict[str, float]:
    found = [logits(one, key, queue, tau) for one in (query, extreme, dropped)]
    contrast = cross_entropy(found[0], uniform(positives(found, topk), 1 + len(queue)))
    target = softmax(found[0])
    d3m = (cross_entropy(found[1], target) + cross_entropy(found[2], target)) / 2
    return {"loss": contrast + d3m, "loss_contrast": contrast, "loss_d3m": d3m}


def cross_view(own: Rows, other: Rows, tau: float, topk: int, context: bool) -> float:
    """From logits of both streams."""
    slots, width = positives([other], topk), own.shape[1]
    if context:
        own = np.concatenate([own, own[:, 1:] * other[:, 1:] * tau], axis=1)
        slots = [chosen | {s + width - 1 for s in chosen if s > 0} for chosen in slots]
    return cross_entropy(own, uniform(slots, own.shape[1]))


def crossclr(
    query: dict[str, Rows],
    key: dict[str, Rows],
    queue: dict[str, Rows],
    tau: float,
    topk: int | None,
    context: bool,
) -> dict[str, float]:
    found = {name: logits(query[name], key[name], queue[name], tau) for name in query}
    losses = {}
    for name, own in found.items():
        if topk is None:
            losses[f"loss_{name}"] = cross_entropy(own, uniform([{0}] * len(own), own.shape[1]))
            continue
        others = [other for another, other in found.items() if another != name]
        terms = [cross_view(own, other, tau, topk, context) for other in others]
        losses[f"loss_{name}"] = sum(terms) / len(terms)
    return {"loss": sum(losses.values()), **losses}


def energy_drop(tokens: Rows, threshold: float, epsilon: float) -> Rows:
    """One sequence (S, V, D)."""
    steps, joints, channels = tokens.shape
    salience = np.zeros_like(tokens)
    for c in range(channels):
        mean = sum(tokens[s, v, c] for s in range(steps) for v in range(joints)) / steps / joints
        distance = (tokens[:, :, c] - mean) ** 2
        spread = distance.sum() / max(1, steps * joints - 1) + epsilon
        for s in range(steps):
            for v in range(joints):
                salience[s, v, c] = 1 / (1 + math.exp(-(distance[s, v] / (4 * spread) + 0.5)))
    whole = [v for v in range(joints) if salience[:, v].mean() < threshold]
    single = salience < threshold
    kept = np.array([v in whole for v in range(joints)])[None, :, None] & single
    if not kept.any():
        return tokens
    return tokens * kept * (joints / len(whole)) / single.mean()
