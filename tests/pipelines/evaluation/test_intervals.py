"""Intervals of proportions, compared with scipy and by coverage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipelines.evaluation.intervals import clopper_pearson, normal_quantile, wilson

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_clopper_pearson_for_any_counts_equals_scipys_exact_interval(pair):
    hits, trials = pair
    expected = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    interval = clopper_pearson(hits, trials)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (hits / trials, expected.low, expected.high), abs=1e-9
    )


@given(counts)
def test_wilson_for_any_counts_equals_scipys_wilson_interval(pair):
    hits, trials = pair
    expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    interval = wilson(hits, trials)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (hits / trials, expected.low, expected.high), abs=1e-9
    )


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5])
def test_clopper_pearson_over_all_outcomes_covers_the_true_rate_as_often_as_stated(rate):
    covered = sum(
        binom.pmf(hits, 40, rate)
        for hits in range(41)
        if clopper_pearson(hits, 40).low <= rate <= clopper_pearson(hits, 40).high
    )
    assert covered >= 0.95


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_intervals_when_counts_make_no_proportion_refuse(hits, trials):
    with pytest.raises(ValueError, match="hits"):
        clopper_pearson(hits, trials)
    with pytest.raises(ValueError, match="hits"):
        wilson(hits, trials)


def test_normal_quantile_at_0975_is_196():
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)
