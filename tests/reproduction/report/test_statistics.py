import numpy as np
import pytest
import scipy.stats

from reproduction.report.runs import Run
from reproduction.report.statistics import Comparison, difference, interval, verdict

PUBLISHED = {"label": "BNN", "protocol": "paper", "value": "1.18", "spread": "0.04", "runs": "6"}
SINGLE = {"protocol": "paper", "value": "8.27", "spread": "", "runs": "1"}
SMALL = {"protocol": "table1-adam-on", "value": "10.47", "spread": "", "runs": ""}


def test_interval_of_several_seeds_is_students():
    # mean 2, standard deviation 1, t(.975, 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    np.testing.assert_allclose(interval([1, 2, 3], 10000), [-0.484138, 4.484138], rtol=1e-6)


def test_interval_of_one_seed_is_clopper_pearsons():
    # no image of 10 wrong: 1 - .025 ** (1 / 10)
    np.testing.assert_allclose(interval([0.0], 10), [0, 30.84971], rtol=1e-6)


def test_difference_is_welchs():
    found, half = difference([1.1, 1.2, 1.3], 10000, PUBLISHED)
    assert found == pytest.approx(0.02)
    # A difference of half the interval is what Welch's test finds at its 5%.
    test = scipy.stats.ttest_ind_from_stats(half, 0.1, 3, 0, 0.04, 6, equal_var=False)
    assert test.pvalue == pytest.approx(0.05)


def test_difference_of_single_runs_is_binomial():
    found, half = difference([8.5], 10000, SINGLE)
    variance = 8.5 * 91.5 / 10000 + 8.27 * 91.73 / 10000
    assert (found, half) == pytest.approx((0.23, 1.959964 * variance**0.5))


@pytest.mark.parametrize(
    ("errors", "published", "expected"),
    [
        ([], PUBLISHED, "missing"),
        ([1.18, 1.19], PUBLISHED, "not enough runs"),
        ([1.16, 1.18, 1.2], PUBLISHED, "reproduced"),
        ([1.0, 1.2, 1.4], PUBLISHED, "not enough runs"),  # imprecise
        ([1.4, 1.41, 1.42], PUBLISHED, "differs"),
        ([1.18, 1.18, 1.18], PUBLISHED, "reproduced"),
        ([8.6], SINGLE, "reproduced"),
        ([9.5], SINGLE, "differs"),
        ([10.47], SMALL, "not judged"),  # the paper does not describe the network
        ([], SMALL, "missing"),
        ([90.0], {**SINGLE, "value": ""}, "not judged"),
    ],
)
def test_verdict(errors, published, expected):
    assert verdict(errors, 10000, published) == expected


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
    assert (reduced.verdict, reduced.interval, reduced.difference) == (
        "reduced setting",
        None,
        None,
    )
