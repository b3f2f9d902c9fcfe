"""fused.sums against its reference, Theano's sum."""

import original_stack

import numpy as np
import pytest
import theano
import theano.tensor as T

from fused.sums import ChannelSum

rng = np.random.RandomState(0)


def compiled(ndim, axis):
    x = T.TensorType("float32", (False,) * ndim)()
    function = theano.function([x], x.sum(axis))
    return function, [type(n.op) for n in function.maker.fgraph.apply_nodes].count(ChannelSum)


@pytest.fixture(scope="module")
def sums():
    """The functions by the number of axes."""
    functions = {}
    for ndim, axis in ((2, 0), (4, (0, 2, 3))):
        functions[ndim], fused = compiled(ndim, axis)
        assert fused == 1
    return functions


SHAPES = [
    (1, 1),
    (7, 300),
    (100, 4096),
    (0, 5),
    (5, 0),
    (3, 5, 6, 7),
    (50, 128, 8, 8),
    (2, 3, 0, 4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums(sums, shape):
    x = rng.normal(size=shape).astype("float32")
    others = tuple(axis for axis in range(len(shape)) if axis != 1)
    expected = x.sum(others, dtype="float64").astype("float32")
    result = sums[len(shape)](x)
    assert result.dtype == np.float32
    np.testing.assert_array_max_ulp(result, expected, 1)


def test_any_strides(sums):
    x = rng.normal(size=(6, 5)).astype("float32")
    assert np.array_equal(sums[2](x.T), sums[2](x.T.copy()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_stay_in_their_channel(sums, value):
    x = np.ones((4, 3), "float32")
    x[2, 1] = value
    np.testing.assert_array_equal(sums[2](x), np.float32([4, value, 4]))


@pytest.mark.parametrize(("ndim", "axis"), [(2, 1), (2, None), (4, (2, 3)), (3, (0, 2)), (4, 0)])
def test_other_sums_stay(ndim, axis):
    assert compiled(ndim, axis)[1] == 0


def test_plain(monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", "0")
    assert compiled(2, 0)[1] == 0
