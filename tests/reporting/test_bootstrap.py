import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.reporting.bootstrap import paired_bootstrap


def outcomes(only_first, only_second, both, neither):
    """Right or wrong of two models by clip, from how often each case occurs."""
    cases = [(1, 0)] * only_first + [(0, 1)] * only_second + [(1, 1)] * both + [(0, 0)] * neither
    first, second = np.array(cases, float).T
    return first, second


def by_loop(first, second, resamples, seed):
    """The definition: draw clips, with replacement, and take the mean of their differences."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(first), len(first))
        result.append(100 * np.mean([second[i] - first[i] for i in drawn]))
    return np.array(result)


@pytest.mark.parametrize("counts", [(5, 14, 30, 11), (0, 3, 20, 2), (10, 10, 10, 10)])
def test_bootstrap_matches_a_loop(counts):
    first, second = outcomes(*counts)
    means = by_loop(first, second, 3000, seed=1)
    result = paired_bootstrap(first, second, resamples=20_000)
    assert result.points == pytest.approx(100 * (counts[1] - counts[0]) / len(first))
    # means are multiples of 100/n; a quantile of 3,000 draws scatters by 0.05 of the spread
    near = 100 / len(first) + 4 * 0.05 * means.std()
    low, high = np.quantile(means, (0.025, 0.975))
    assert result.low == pytest.approx(low, abs=near)
    assert result.high == pytest.approx(high, abs=near)
    share = 2 * min((means <= 1e-9).mean(), (means >= -1e-9).mean())
    # four standard errors of twice a share of 3,000 draws
    assert result.p == pytest.approx(min(1, share), abs=8 * 0.5 / 3000**0.5)


def test_bootstrap_of_averaged_seeds_matches_a_loop():
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 4, 50) / 3 for _ in range(2))
    means = by_loop(first, second, 3000, seed=2)
    result = paired_bootstrap(first, second)
    # means are multiples of 100 / 150; quantiles scatter by 0.06 of the spread (both draws)
    near = 100 / 150 + 4 * 0.06 * means.std()
    low, high = np.quantile(means, (0.025, 0.975))
    assert result.low == pytest.approx(low, abs=near)
    assert result.high == pytest.approx(high, abs=near)
    assert result.points == pytest.approx(100 * (second - first).mean(), abs=1e-6)


def test_interval_of_many_clips_is_normal():
    first, second = outcomes(900, 1100, 6000, 2000)
    clips = len(first)
    shares = np.array([900, 1100]) / clips
    error = 100 * np.sqrt((shares.sum() - (shares[1] - shares[0]) ** 2) / clips)
    result = paired_bootstrap(first, second)
    assert result.points == pytest.approx(2.0)
    # the 2.5 % quantile of 10,000 draws scatters by 0.03 standard errors
    assert result.low == pytest.approx(2.0 - 1.96 * error, abs=0.12 * error)
    assert result.high == pytest.approx(2.0 + 1.96 * error, abs=0.12 * error)


def test_coverage():
    """Of 95 % intervals of drawn test sets, about 95 % hold the true difference."""
    rng = np.random.default_rng(3)
    truth, held, trials = 10.0, 0, 400
    for trial in range(trials):
        case = rng.choice(3, 300, p=(0.1, 0.2, 0.7))
        result = paired_bootstrap((case == 0) * 1.0, (case == 1) * 1.0, 1000, seed=trial)
        held += result.low <= truth <= result.high
    # four standard errors: 4 sqrt(0.95 * 0.05 / 400)
    assert held / trials == pytest.approx(0.95, abs=0.044)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_properties(cases):
    first, second = np.array(cases, float).T
    result, back = paired_bootstrap(first, second, 500), paired_bootstrap(second, first, 500)
    assert result == paired_bootstrap(first, second, 500)
    assert back.points == pytest.approx(-result.points)
    assert result.low - 1e-9 <= result.points <= result.high + 1e-9 or len(first) < 20
    assert 0 < result.p <= 1
    assert -100 <= result.low <= result.high <= 100
    order = np.random.default_rng(0).permutation(len(first))
    assert paired_bootstrap(first[order], second[order], 500) == result


def test_equal_models_do_not_differ():
    scores = np.array([1.0, 0.0, 1.0])
    result = paired_bootstrap(scores, scores)
    assert result[:4] == (0.0, 0.0, 0.0, 1.0)
    assert not result.significant
    assert paired_bootstrap(np.zeros(30), np.ones(30)).significant


def test_large_test_sets_are_fast():
    rng = np.random.default_rng(0)
    first, second = (rng.random((9, 50_000)) < 0.7 for _ in range(2))
    start = time.perf_counter()
    paired_bootstrap(first.mean(0), second.mean(0))
    # as a table of clips by resamples it would be 4 GB and a minute
    assert time.perf_counter() - start < 5


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="0 and 0 clips"):
        paired_bootstrap(np.ones(0), np.ones(0))
