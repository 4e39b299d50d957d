"""Importance of the backbones from its definitions, with full attention maps."""

import math

import numpy as np

Weights = dict[str, np.ndarray]


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Each row (D,) to mean 0 and variance 1, then scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def softmax_map(x: np.ndarray, block: Weights, heads: int) -> np.ndarray:
    """(L, D) to the maps (H, L, L), queries first, of a block with `norm1` and `attn.qkv`."""
    normed = layer_norm(x, block["norm1.weight"], block["norm1.bias"], 1e-5)
    both = normed @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
    length, dim = x.shape
    width = dim // heads
    maps = np.zeros((heads, length, length))
    for h in range(heads):
        query = both[:, h * width : (h + 1) * width]
        key = both[:, dim + h * width : dim + (h + 1) * width]
        for i in range(length):
            odds = np.array([math.exp(query[i] @ key[j] / math.sqrt(width)) for j in range(length)])
            maps[h, i] = odds / odds.sum()
    return maps


def column_mean(maps: np.ndarray, steps: int, stride: int) -> np.ndarray:
    """Importance (T, V): the mean over heads and queries, shared by the frames of a patch."""
    patches = maps.mean((0, 1)).reshape(steps, -1)
    joints = patches.shape[1]
    shared = np.zeros((steps * stride, joints))
    for t in range(steps * stride):
        shared[t] = patches[t // stride] / stride
    return shared


def slot_code(channels: int, slots: int) -> np.ndarray:
    """(C, W): sin and cos of the slot at falling frequencies, in turn."""
    code = np.zeros((channels, slots))
    for c in range(channels):
        frequency = math.exp(-(c - c % 2) * math.log(1e4) / channels)
        for w in range(slots):
            code[c, w] = math.cos(w * frequency) if c % 2 else math.sin(w * frequency)
    return code


def tuple_scores(x: np.ndarray, block: Weights, heads: int, dim: int) -> np.ndarray:
    """(C, P, W) to the products (P, H, W, W) of each tuple, the source first, over the d channels.

    Rows of `to_qkvs` are the queries of all heads, then their keys.
    """
    channels, tuples, slots = x.shape
    weight = block["to_qkvs.weight"][:, :, 0, 0]
    scores = np.zeros((tuples, heads, slots, slots))
    for p in range(tuples):
        placed = x[:, p] + slot_code(channels, slots)
        both = weight @ placed + block["to_qkvs.bias"][:, None]
        for h in range(heads):
            query = both[h * dim : (h + 1) * dim]
            key = both[(heads + h) * dim : (heads + h + 1) * dim]
            for u in range(slots):
                for w in range(slots):
                    scores[p, h, u, w] = query[:, u] @ key[:, w] / dim
    return scores


def tanh_map(scores: np.ndarray, block: Weights) -> np.ndarray:
    """A map (H, W, W) from mean products (H, W, W)."""
    return np.tanh(scores) * block["alphas"][0] + block["att0s"][0]


def sttformer_importance(
    kind: str, x: np.ndarray, block: Weights, heads: int, dim: int
) -> np.ndarray:
    """(P, W): what each cell of the last block's input (C, P, W) gives to the others."""
    scores = tuple_scores(x, block, heads, dim)
    tuples, slots = x.shape[1:]
    weights = tanh_map(scores.mean(0), block)
    found = np.zeros((tuples, slots))
    for p in range(tuples):
        here = tanh_map(scores[p], block) if kind == "tuple" else weights
        for u in range(slots):
            given = np.mean([sum(abs(a) for a in here[h, u]) for h in range(heads)])
            if kind == "contrib":
                given *= math.sqrt(sum(v * v for v in x[:, p, u]))
            found[p, u] = given
    return found / found.sum()
