"""Paired bootstrap over clips: is the difference of two models significant?

Both models are tested on the same clips, so clips are resampled together with the scores of both
models (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15; for the
comparison of two systems on one test set: Koehn, "Statistical Significance Tests for Machine
Translation Evaluation", EMNLP 2004).

The interval is about the choice of test clips, not about training again. For the latter, train
several seeds; their scores are averaged per clip before clips are resampled, so that the difference
is one between averages over these seeds.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_CHUNK = 2**22
"""Numbers drawn at a time (32 MiB)."""


class Difference(NamedTuple):
    """Difference of two models in percentage points, second minus first."""

    points: float
    low: float
    """Lower limit of the confidence interval (95 % by default)."""
    high: float
    """Upper limit of the confidence interval."""
    p: float
    """Two-sided bootstrap p-value: twice the share of resampled test sets on which the difference
    is 0 or has the opposite sign, at most 1. It is above 0, because the test set itself counts."""
    clips: int

    @property
    def significant(self) -> bool:
        """True if the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Return the difference of two models on the same clips with a percentile interval.

    The mean of a resample depends only on how often each distinct value of the difference is drawn
    (-1, 0 and 1 for two runs). A resample is therefore drawn from a multinomial distribution over
    the distinct values, which is the same distribution at a fraction of the cost.

    Args:
        first: Score of each clip under the first model in [0, 1]: correct or not, or the share of
            seeds, levels and draws with which it is correct.
        second: Scores of the same clips under the second model.
        resamples: Number of resampled test sets.
        seed: Seed of the resampling.
        confidence: Coverage of the interval.

    Raises:
        ValueError: If there are no clips, or the numbers of clips differ.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} clips, expected the same clips")
    # rounded, so that equal differences of averages are one value
    differences = np.round(np.asarray(second, np.float64) - np.asarray(first, np.float64), 9)
    values, counts = np.unique(differences, return_counts=True)
    means = _resampled_means(values, counts, resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    rarer_sign = min((means < 1e-9).sum(), (means > -1e-9).sum())  # 0 up to rounding counts as both
    p = min(1.0, 2 * float(rarer_sign + 1) / (resamples + 1))
    points, low, high = (100 * float(value) for value in (differences.mean(), low, high))
    return Difference(points, low, high, p, len(differences))


def _resampled_means(
    values: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    """Return the mean difference of each resample."""
    clips = int(counts.sum())
    step = max(1, _CHUNK // len(values))
    chunks = [
        rng.multinomial(clips, counts / clips, size=min(step, resamples - start)) @ values
        for start in range(0, resamples, step)
    ]
    return np.concatenate(chunks) / clips
