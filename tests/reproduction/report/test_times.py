import types

import pytest
from records import record

from reproduction.report.runs import Run
from reproduction.report.times import cpu_hours, time_of_a_run


def run(earlier=(), seconds=7200.0, rows=(), **changes):
    """A run of 10 epochs, with (epoch, seconds) of the rows of epochs.csv."""
    contents = record(epochs=10, epochs_done=10, seconds=seconds, earlier=list(earlier), **changes)
    return Run("a", contents, (), [{"epoch": e, "seconds": s} for e, s in rows])


def test_cpu_hours_are_hours_times_threads():
    assert cpu_hours(run(threads=2)) == pytest.approx(4.0)
    assert cpu_hours(run(threads=1)) == pytest.approx(2.0)


def test_each_part_of_a_resumed_run_has_its_threads():
    earlier = [{"until_epoch": 4, "threads": 1}, {"until_epoch": 6, "threads": 8}]
    rows = [(4, 1800.0), (6, 3600.0), (10, 7200.0)]
    assert cpu_hours(run(earlier, rows=rows, threads=2)) == pytest.approx(0.5 + 8 * 0.5 + 2 * 1)
    # Without the row of its last epoch, a stretch has its share of the epochs.
    assert cpu_hours(run(earlier[:1], threads=2)) == pytest.approx(0.8 + 2 * 1.2)


@pytest.mark.parametrize("seconds", [float("nan"), -5.0, 1e9, None])
def test_a_useless_row_gives_no_impossible_cost(seconds):
    hours = cpu_hours(run([{"until_epoch": 4, "threads": 1}], rows=[(4, seconds)], threads=1))
    assert hours == pytest.approx(2.0)


def test_a_clock_that_was_set_back_costs_nothing():
    assert cpu_hours(run(seconds=-3596.0)) == 0


@pytest.mark.parametrize(
    ("seconds_and_threads", "expected"),
    [
        ([(9.0, 1), (4.0, 2), (6.0, 2)], (5.0, 2, "median of the runs with 2 threads")),
        ([(4.0, 2), (9.0, 1)], (9.0, 1, "median of the runs with 1 thread")),
        ([(-4.0, 2), (9.0, 1)], (9.0, 1, "median of the runs with 1 thread")),
    ],
)
def test_time_is_that_of_runs_with_one_number_of_threads(seconds_and_threads, expected):
    """A median over runs with different threads would be the time of none of them."""
    runs = [run(seconds=seconds, threads=threads) for seconds, threads in seconds_and_threads]
    assert time_of_a_run(types.SimpleNamespace(runs=runs), {}) == expected
