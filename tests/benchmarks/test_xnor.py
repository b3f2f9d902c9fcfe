"""The rivals of benchmark xnor, against each other."""

import original_stack

import numpy as np
import pytest


@pytest.fixture
def xnor(monkeypatch):
    monkeypatch.syspath_prepend(original_stack.ROOT / "benchmarks")
    import xnor

    return xnor


def test_rivals_of_the_network_compute_the_same(xnor, tmp_path):
    path = tmp_path / "network.npz"
    real, packed = xnor.export_network(32, path)
    assert packed < real
    results = []
    for rival in ("xnor", "sgemm", "plain"):
        _, share, first = xnor.network(rival, 32, 10, path)
        assert share == 1
        results.append(first)
    assert np.shape(results) == (3, xnor.CHECKED, 10)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_rivals_of_the_product_compute_the_same(xnor):
    first, second, third = (xnor.product(rival, 96)[2] for rival in ("xnor", "sgemm", "plain"))
    assert first == second == third
