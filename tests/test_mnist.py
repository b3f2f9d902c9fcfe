"""The masks of dropout."""

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

import mnist

x = T.matrix("x")
X = np.random.RandomState(0).uniform(-1, 1, (2000, 50)).astype("float32")


@pytest.fixture(params=["0", "1"], ids=["plain", "fused"])
def fused_or_plain(request, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", request.param)
    lasagne.random.set_rng(np.random.RandomState(1))


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_drops_a_share_of_inputs_and_scales_the_others(fused_or_plain, p):
    layer = mnist.DropoutLayer((None, 50), p)
    y = layer.get_output_for(x)
    train = theano.function([x], [y, T.grad(T.sum(y), x)])
    scale = np.float32(1 / (1 - p))
    masks = []
    for _ in range(3):
        output, gradient = train(X)
        assert output.dtype == gradient.dtype == "float32"
        assert set(np.unique(gradient)) == {0, scale}
        np.testing.assert_array_equal(output, X * gradient)
        masks.append(gradient == 0)
    dropped, n = np.mean(masks), 3 * X.size
    assert abs(dropped - p) < 5 * np.sqrt(p * (1 - p) / n)
    # Steps are independent: two masks drop the same input with probability p^2.
    both = np.mean(masks[0] & masks[1])
    assert abs(both - p**2) < 5 * np.sqrt(p**2 * (1 - p**2) / X.size)


def test_dropout_passes_inputs_on_at_test_time():
    layer = mnist.DropoutLayer((None, 50), 0.5)
    assert layer.get_output_for(x, deterministic=True) is x


def test_each_dropout_layer_samples_its_own_masks(fused_or_plain):
    layers = [mnist.DropoutLayer((None, 50), 0.5) for _ in range(2)]
    first, second = theano.function([x], [layer.get_output_for(x) for layer in layers])(X)
    both = np.mean((first == 0) & (second == 0))
    assert abs(both - 0.25) < 5 * np.sqrt(0.25 * 0.75 / X.size)
