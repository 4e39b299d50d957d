"""Whether two models differ on a test set: the paired bootstrap over clips.

Both models are tested on the same clips, so what is drawn again are clips, each with the scores of
both models (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15; for
the comparison of two systems on one test set: Koehn, "Statistical Significance Tests for Machine
Translation Evaluation", EMNLP 2004).

It answers: would the difference be there with other test clips of the same kind? It does not
answer: would it be there if the models were trained again. For that train several seeds; their
scores are averaged per clip before clips are drawn, which makes the difference one between averages
over *these* seeds.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_AT_ONCE = 2**22
"""Numbers that are drawn at a time (32 MiB)."""


class Difference(NamedTuple):
    """How much better the second of two models is, in percentage points."""

    points: float
    """Second minus first."""
    low: float
    """Lower end of the interval that holds the middle share (95 %) of the resampled differences."""
    high: float
    """Upper end."""
    share: float
    """Twice the share of resampled test sets on which the difference is 0 or has the other sign, at
    most 1: small for a difference that does not hang on few clips. Read like a two-sided p-value;
    never 0, since the test set itself is counted among the resampled ones."""
    clips: int

    @property
    def supported(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Difference of two models on the same clips, with a percentile interval.

    The mean of a resample depends only on how often each *value* of the difference was drawn (for
    two runs these are -1, 0 and 1), so that a resample of n clips is one draw from a multinomial
    distribution over the distinct values: exactly the same distribution, without n numbers for each
    resample.

    Args:
        first: Score of each clip under the first model, in [0, 1]: right or wrong, or the share of
            seeds, levels and draws with which it was right.
        second: The same clips in the same order under the second model.
        resamples: Test sets that are drawn.
        seed: Of the draws.
        confidence: Share of the resampled differences inside of the interval.

    Raises:
        ValueError: If there are no clips, or not as many of both models.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} and {len(second)} clips; expected the same ones, at least 1"
        )
    # rounded, so that equal differences of averages are one value
    each = np.round(np.asarray(second, np.float64) - np.asarray(first, np.float64), 9)
    values, counts = np.unique(each, return_counts=True)
    means = _resampled_means(values, counts, resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    # a sum of such values is 0 up to rounding
    rarer = min((means < 1e-9).sum(), (means > -1e-9).sum())
    share = min(1.0, 2 * float(rarer + 1) / (resamples + 1))
    points, low, high = (100 * float(value) for value in (each.mean(), low, high))
    return Difference(points, low, high, share, len(each))


def _resampled_means(
    values: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    """Mean difference of each resample."""
    clips = int(counts.sum())
    step = max(1, _AT_ONCE // len(values))
    parts = [
        rng.multinomial(clips, counts / clips, size=min(step, resamples - start)) @ values
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts) / clips
