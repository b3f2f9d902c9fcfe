import doctest

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given
from hypothesis import strategies as st

import shift_based

x = T.vector("x")
ap2 = theano.function([x], shift_based.ap2(x))


def ap2_of_paper(values):
    """sign(x) 2^round(log2 |x|), in float64; 0 for 0."""
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore"):
        return np.sign(values) * 2.0 ** np.rint(np.log2(np.abs(values)))


numbers = st.floats(2.0**-125, 2.0**126, width=32)


@given(st.lists(numbers | numbers.map(lambda v: -v) | st.just(0.0), min_size=1, max_size=40))
def test_ap2_is_the_nearest_power_of_two(values):
    assert np.array_equal(ap2(np.float32(values)), np.float32(ap2_of_paper(values)))


def test_ap2_beside_its_borders():
    root = np.float32(np.sqrt(2))  # slightly below the square root
    values = np.float32([root, np.nextafter(root, np.float32(2)), 1, 2, np.nextafter(2, 1), 0.75])
    assert ap2(values).tolist() == [1, 2, 1, 2, 2, 1]
    assert ap2(-values).tolist() == [-1, -2, -1, -2, -2, -1]
    assert ap2(np.float32([0.0]))[0] == 0


def test_ap2_in_python_is_that_in_c():
    values = np.float32([0.7, 0.71, -3, 0, 1e-30])
    scalar = shift_based._AP2(theano.scalar.same_out)
    assert [float(scalar.impl(v)) for v in values] == ap2(values).tolist()


def test_gradient_of_ap2_is_one():
    gradient = theano.function([x], theano.grad((3 * shift_based.ap2(x)).sum(), x))
    assert gradient(np.float32([0.7, -5])).tolist() == [3, 3]


@pytest.mark.parametrize("fused", [0, 1])
@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 3, 2)])
def test_batch_normalization(shape, fused, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", str(fused))
    rng = np.random.RandomState(3)
    values = np.float32(rng.normal(2, 3, shape))
    layer = shift_based.ShiftBatchNormLayer((None, *shape[1:]), alpha=0.25)
    gamma, beta = np.float32(rng.normal(0, 2, 5)), np.float32(rng.normal(0, 1, 5))
    layer.gamma.set_value(gamma)
    layer.beta.set_value(beta)
    X = T.TensorType("float32", (False,) * len(shape))()
    train = theano.function([X], layer.get_output_for(X))
    test = theano.function([X], layer.get_output_for(X, deterministic=True))

    axes = (0, *range(2, len(shape)))
    wide = (-1, *(1,) * (len(shape) - 2))
    centered = values - values.mean(axis=axes, keepdims=True)
    variance = (centered * ap2_of_paper(centered)).mean(axis=axes)
    inv_std = 1 / np.sqrt(variance + 1e-4)
    scale = ap2_of_paper(gamma) * ap2_of_paper(inv_std)
    expected = centered * scale.reshape(wide) + beta.reshape(wide)
    np.testing.assert_allclose(train(values), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.mean.get_value(), 0.25 * values.mean(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(layer.inv_std.get_value(), 0.75 + 0.25 * inv_std, rtol=1e-5)

    scale = ap2_of_paper(gamma) * ap2_of_paper(layer.inv_std.get_value())
    centered = values - layer.mean.get_value().reshape(wide)
    expected = centered * scale.reshape(wide) + beta.reshape(wide)
    np.testing.assert_allclose(test(values), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", ["1", "0"])
def test_adamax(fused, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", fused)
    w = theano.shared(np.float32([[1, -2, 0.5, 3]]))
    g, LR = T.matrix(), T.scalar()
    step = theano.function([g, LR], updates=shift_based.shift_adamax([g], [w], LR))
    rng = np.random.RandomState(4)
    expected, m, v = w.get_value().astype(np.float64), 0, 0
    for t in range(1, 6):
        grad = np.float32(rng.normal(size=(1, 4)))
        grad[0, 3] = 0  # never moves, and divides nothing by zero
        step(grad, 0.01)
        m = m + (grad - m) / 8
        v = np.maximum(v * (1 - 2**-10), abs(grad))
        rate = ap2_of_paper(0.01 / (1 - (7 / 8) ** t))
        with np.errstate(divide="ignore", invalid="ignore"):
            expected -= np.where(v > 0, rate * m * ap2_of_paper(1 / v), 0)
        np.testing.assert_allclose(w.get_value(), expected, rtol=1e-5)
    assert w.get_value()[0, 3] == 3


def test_adamax_has_the_rate_of_the_paper():
    w = theano.shared(np.float32([0]))
    updates = shift_based.shift_adamax(T.sum(w) * 4, [w])
    theano.function([], updates=updates)()
    # t = 1: the rate is ap2(2^-10 / 2^-3), m = 4 / 8, v = 4
    assert w.get_value().tolist() == [-(2.0**-7) * 0.5 / 4]


def test_examples():
    assert doctest.testmod(shift_based) == (0, 1)
