import json

import pytest
from records import add_run

from reproduction.experiments import ROWS
from reproduction.report import findings
from reproduction.report.scale import memory_and_disk, needs_of, scale_page, wall_time


def needs(row, memory=10**9, **changes):
    return {
        "row": row,
        "first_memory": memory,
        "memory": memory,
        "prepared_data": 0,
        "checkpoint": 20_000_000,
        "folder": 10_000_000,
        "files": 5,
        "compiled": 3_000_000,
        "compiled_files": 40,
        **changes,
    }


SCALE = {
    "runs": [
        needs("mnist:paper:stochastic", prepared_data=50_000_000),
        needs("mnist:bnn-theano:bnn", 3 * 10**9, checkpoint=440_000_000, compiled=7_000_000),
    ],
    "engine": {"10": 2.0, "1000": 60.0},
    "machine": {"processor": "A processor"},
}


def test_memory_and_disk_in_a_table():
    more = needs("svhn:paper:stochastic", first_memory=6 * 10**9, prepared_data=4 * 10**9)
    assert memory_and_disk({**SCALE, "runs": [*SCALE["runs"], more]}).splitlines() == [
        "| at most, in GB | memory | disk of a run | disk of the prepared data |",
        "| --- | --- | --- | --- |",
        "| MNIST | 3 | 0.45 | 0.05 |",
        "| SVHN | 6 | 0.03 | 4 |",
    ]
    assert memory_and_disk(None) == ""


@pytest.fixture
def page(tmp_path):
    """The page of a folder with two runs of one row and, perhaps, measurements."""

    def make(scale):
        for seed in (1, 2):
            add_run(tmp_path, seed=seed, seconds=7200.0, threads=2)
        if scale:
            (tmp_path / "benchmarks").mkdir()
            (tmp_path / "benchmarks" / "scale.json").write_text(json.dumps(scale))
        read = findings.read(tmp_path, ROWS)
        assert read.notes == []
        return scale_page(read)

    return make


def test_a_row_has_the_numbers_of_its_own_or_of_the_neediest_of_its_data():
    own = needs_of(("mnist", "paper", "stochastic"), SCALE)
    assert own["row"] == "mnist:paper:stochastic"
    assert needs_of(("mnist", "paper", "none"), SCALE)["row"] == "mnist:bnn-theano:bnn"
    assert needs_of(("svhn", "paper", "none"), SCALE) is None
    assert needs_of(("svhn", "paper", "none"), None) is None


@pytest.mark.parametrize(("nodes", "hours"), [(1, 12), (2, 6), (3, 5), (100, 5)])
def test_the_last_run_to_end_sets_the_time(nodes, hours):
    assert wall_time([2, 5, 1, 4], nodes) == hours


def test_page(page):
    text = page(SCALE)
    assert (
        "| MNIST | paper | stochastic | 2.0 hours | 2 threads | 24 | 1000.0 MB | 30.0 MB | 5 |"
    ) in text
    assert "| all, 138 runs |  |  |  |  | 24 |" in text
    assert "| 6 | 6 | 12.0 hours | 2.0 hours | 2.0 hours | 2.0 hours |" in text
    assert "the largest (mnist:bnn-theano:bnn) has 440.0 MB" in text
    assert "So 1,000 nodes write at most 333.3 MB a second." in text
    assert "up to 7.0 MB in 40 files" in text
    assert "took 60 seconds for 1,000 jobs that do nothing, or 60 ms a job" in text
    assert "when a run starts: 50.0 MB for MNIST." in text
    assert "Processor: A processor." in text


def test_page_without_measurements(page):
    text = page(None)
    assert "| MNIST | paper | stochastic | 2.0 hours | 2 threads | 24 |  |  |  |" in text
    assert "| MNIST | paper | none | not measured |" in text
    assert "1,000 nodes |" in text
    assert "## What limits" not in text
