"""What all tests share: the original stack, before anything imports Theano."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import original_stack  # noqa: E402, F401

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    """Loads values that the code of 2015-16 gave: golden("mlp_det_adam")["init/layer01_W"]."""
    return lambda name: np.load(GOLDEN / f"{name}.npz")


def assert_near(actual, expected, tolerance=1e-5):
    """`actual` equals `expected` up to `tolerance` times the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * abs(expected).max())
