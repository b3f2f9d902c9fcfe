import numpy as np
import pytest
import scipy.stats

from reproduction.report.runs import Run
from reproduction.report.statistics import (
    Comparison,
    difference,
    difference_of_errors,
    interval,
    paired,
    rule,
    verdict,
    visible,
)

PUBLISHED = {
    "label": "BNN",
    "dataset": "mnist",
    "protocol": "paper",
    "value": "1.18",
    "spread": "0.04",
    "runs": "6",
}
SINGLE = {"dataset": "cifar10", "protocol": "paper", "value": "8.27", "spread": "", "runs": "1"}
UNCERTAIN = {**SINGLE, "dataset": "mnist", "value": "1.40"}
SMALL = {**SINGLE, "protocol": "table1-adam-on", "value": "10.47", "runs": ""}


def test_interval_of_several_seeds_is_students():
    # mean 2, standard deviation 1, t(.975, 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    np.testing.assert_allclose(interval([1, 2, 3], 10000), [-0.484138, 4.484138], rtol=1e-6)


def test_interval_of_one_seed_is_clopper_pearsons():
    # no image of 10 wrong: 1 - .025 ** (1 / 10)
    np.testing.assert_allclose(interval([0.0], 10), [0, 30.84971], rtol=1e-6)


def test_difference_is_welchs():
    delta, half = difference([1.1, 1.2, 1.3], 10000, PUBLISHED)
    assert delta == pytest.approx(0.02)
    # A difference of half the interval is what Welch's test finds at its 5%.
    test = scipy.stats.ttest_ind_from_stats(half, 0.1, 3, 0, 0.04, 6, equal_var=False)
    assert test.pvalue == pytest.approx(0.05)


def test_difference_of_single_runs_is_binomial():
    delta, half = difference([8.5], 10000, SINGLE)
    variance = 8.5 * 91.5 / 10000 + 8.27 * 91.73 / 10000
    assert (delta, half) == pytest.approx((0.23, 1.959964 * variance**0.5))


@pytest.mark.parametrize(
    ("errors", "published", "expected"),
    [
        ([], PUBLISHED, "missing"),
        ([1.18, 1.19], PUBLISHED, "not enough runs"),
        ([1.16, 1.18, 1.2], PUBLISHED, "reproduced"),
        ([1.0, 1.2, 1.4], PUBLISHED, "not enough runs"),  # imprecise
        ([1.2, 1.26, 1.32], PUBLISHED, "not enough runs"),  # beyond the margin of .177
        ([1.4, 1.41, 1.42], PUBLISHED, "differs"),
        ([1.18, 1.18, 1.18], PUBLISHED, "reproduced"),
        ([8.6], SINGLE, "reproduced"),
        ([9.5], SINGLE, "differs"),
        # The published error of one run is 1.40 -+ .23, and the margin .21.
        ([1.46, 1.70], UNCERTAIN, "not enough runs"),
        ([1.46, 1.70, 1.60], UNCERTAIN, "consistent"),
        ([1.40] * 100, UNCERTAIN, "consistent"),
        ([1.70] * 100, UNCERTAIN, "differs"),
        ([10.47], SMALL, "not judged"),  # the paper does not describe the network
        ([], SMALL, "missing"),
        ([90.0], {**SINGLE, "value": ""}, "not judged"),
    ],
)
def test_verdict(errors, published, expected):
    assert verdict(errors, 10000, published) == expected


def test_reproduced_is_an_equivalence_test():
    """Two one-sided tests reject a difference of the margin to either side exactly where the
    interval lies within it."""
    errors, margin = [1.16, 1.2, 1.22], 0.15 * 1.18
    delta, half = difference(errors, 10000, PUBLISHED)
    assert verdict(errors, 10000, PUBLISHED) == "reproduced"
    ours = np.mean(errors), np.std(errors, ddof=1), 3
    for side, alternative in ((1.18 - margin, "greater"), (1.18 + margin, "less")):
        test = scipy.stats.ttest_ind_from_stats(
            *ours, side, 0.04, 6, equal_var=False, alternative=alternative
        )
        assert (test.pvalue < 0.025) == (abs(delta) + half < margin)


@pytest.mark.parametrize(("seeds", "power"), [(3, 0.75), (6, 0.78), (10, 0.79)])
def test_visible_difference_is_seen(seeds, power):
    rng = np.random.RandomState(0)
    theirs = rng.normal(1.18, 0.04, (6, 20000))
    ours = rng.normal(1.18 + visible(PUBLISHED, seeds), 0.04, (seeds, 20000))
    seen = scipy.stats.ttest_ind(ours, theirs, equal_var=False).pvalue < 0.05
    assert seen.mean() == pytest.approx(power, abs=0.01)


def test_seeds_that_are_shared_are_paired():
    first, second = {1: 1.0, 2: 1.2, 3: 1.1, 9: 5.0}, {1: 1.1, 2: 1.2, 3: 1.3, 4: 9.0}
    delta, half, pairs = paired(first, second)
    assert (delta, pairs) == (pytest.approx(-0.1), 3)
    assert half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert difference_of_errors(first, second, 10000) == (delta, half, 3)


def test_seeds_that_are_not_shared_are_not_paired():
    assert paired({1: 1.0}, {2: 1.0}) == (None, None, 0)
    assert paired({1: 1.0, 2: 3.0}, {2: 1.0}) == (2.0, None, 1)
    # Welch's, as of a published mean over three runs with a spread of .1
    theirs = {**PUBLISHED, "value": "1.2", "spread": "0.1", "runs": "3"}
    expected = difference([1.0, 1.1], 10000, theirs)
    delta = difference_of_errors({1: 1.0, 2: 1.1}, {4: 1.1, 5: 1.2, 6: 1.3}, 10000)
    assert delta == (*map(pytest.approx, expected), 0)


def test_numbers_of_the_rule():
    text = rule()
    assert "remove 22% of the error" in text
    assert "which is 9% of the error" in text
    assert "if all 17 rows that can be judged were reproduced,\n0.9 of them" in text
    assert "each at 2.5%" in text
    rows = "MNIST, BinaryConnect (stoch.), release; MNIST, BNN (Theano); MNIST, BNN (Torch7)"
    assert f"wider than the margin ({rows})" in " ".join(text.split())


def test_comparison_takes_comparable_runs_by_seed():
    def run(seed, error, *departures):
        record = {"seed": seed, "test_error": error, "test_images": 10000}
        return Run(str(seed), record, departures)

    runs = [run(3, 1.2), run(1, 1.16), run(4, 5.0, "width 0.5"), run(2, 1.18)]
    compared = Comparison(PUBLISHED, runs)
    assert compared.name == "BNN"
    assert Comparison({**PUBLISHED, "protocol": "release"}, []).name == "BNN, release"
    assert compared.errors == [1.16, 1.18, 1.2]
    assert compared.others == [runs[2]]
    assert compared.verdict == "reproduced"
    assert compared.interval == interval([1.16, 1.18, 1.2], 10000)
    assert compared.difference == difference([1.16, 1.18, 1.2], 10000, PUBLISHED)
    reduced = Comparison(PUBLISHED, runs[2:3])
    unofficial = Comparison(PUBLISHED, [*runs[2:3], run(5, 1.1, "unofficial data (a.gz)")])
    assert unofficial.verdict == "unofficial data"
    assert [run["seed"] for run in unofficial.unofficial] == [5]
    assert unofficial.others == [runs[2]]
    assert (unofficial.errors, unofficial.interval) == ([], None)
    assert (reduced.verdict, reduced.interval, reduced.difference) == (
        "reduced setting",
        None,
        None,
    )
