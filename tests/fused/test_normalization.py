"""The fused batch normalization against the plain layers and their gradients by Theano."""

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near
from lasagne.nonlinearities import identity, rectify
from theano.tensor.signal.pool import pool_2d

from batch_norm import BatchNormLayer, CumulativeBatchNormLayer
from fused.normalization import BatchNorm, ShiftBatchNorm
from shift_based import ShiftBatchNormLayer

KINDS = {
    "released": lambda shape, f: BatchNormLayer(shape, epsilon=1e-4, alpha=0.25, nonlinearity=f),
    "published": lambda shape, f: CumulativeBatchNormLayer(shape, epsilon=1e-4, nonlinearity=f),
}


def shift_based(shape, nonlinearity):
    return ShiftBatchNormLayer(shape, epsilon=1e-4, alpha=0.25)


def tensor(ndim):
    return T.TensorType("float32", (False,) * ndim)()


@pytest.fixture
def both(monkeypatch):
    """Builds (function, layer) twice, fused and plain: function(x, dy) is the output of a layer of
    that kind and the gradients of x, gamma and beta, given that of the output."""

    def build(kind, shape, nonlinearity=identity, op=BatchNorm):
        built = []
        rng = np.random.RandomState(1)
        gamma, beta = rng.uniform(-2, 2, (2, shape[1])).astype("float32")
        for switch in ("1", "0"):
            monkeypatch.setenv("BINARYCONNECT_FUSED", switch)
            layer = KINDS.get(kind, kind)((None, *shape[1:]), nonlinearity)
            layer.gamma.set_value(gamma.reshape(layer.gamma.get_value().shape))
            layer.beta.set_value(beta.reshape(layer.beta.get_value().shape))
            x, dy = tensor(len(shape)), tensor(len(shape))
            y = layer.get_output_for(x)
            grads = theano.grad(None, [x, layer.gamma, layer.beta], known_grads={y: dy})
            function = theano.function([x, dy], [y, *grads])
            nodes = function.maker.fgraph.apply_nodes
            assert any(isinstance(node.op, op) for node in nodes) == (switch == "1")
            built.append((function, layer))
        return built

    return build


def data(shape, seed=0):
    rng = np.random.RandomState(seed)
    x, dy = rng.normal(size=(2, *shape)).astype("float32")
    means = rng.normal(size=(shape[1], *[1] * (len(shape) - 2))).astype("float32")
    return 3 * x + means, dy


FLAT = [(200, 130), (5, 1), (3, 257), (1500, 10)]
IMAGES = [(5, 3, 8, 8), (4, 130, 1, 1), (2, 2, 5, 7), (7, 1, 1, 17), (20, 40, 6, 6)]
CASES = [("released", shape) for shape in FLAT + IMAGES] + [("published", shape) for shape in FLAT]


@pytest.mark.parametrize("nonlinearity", [identity, rectify])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_equals_the_plain_layer(both, kind, shape, nonlinearity):
    (fused, layer), (plain, plain_layer) = both(kind, shape, nonlinearity)
    for seed in (0, 1):
        x, dy = data(shape, seed)
        for a, b in zip(fused(x, dy), plain(x, dy), strict=True):
            assert a.dtype == np.float32
            assert_near(a, b)
    for a, b in zip(layer.get_params(), plain_layer.get_params(), strict=True):
        assert_near(a.get_value(), b.get_value(), 1e-6)


@pytest.mark.parametrize("shape", FLAT + IMAGES)
def test_shift_based_output_is_that_of_the_plain_layer(both, shape):
    (fused, layer), (plain, plain_layer) = both(shift_based, shape, op=ShiftBatchNorm)
    for seed in (0, 1):
        x, dy = data(shape, seed)
        (y, *gradients), (expected, *others) = fused(x, dy), plain(x, dy)
        assert np.array_equal(y, expected)
        for a, b in zip(gradients, others, strict=True):
            assert a.dtype == np.float32
            assert_near(a, b)
    for a, b in zip(layer.get_params(), plain_layer.get_params(), strict=True):
        assert np.array_equal(a.get_value(), b.get_value())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_shift_based_special_values_stay_in_their_channel(both, value):
    (fused, _), (plain, _) = both(shift_based, (6, 4), op=ShiftBatchNorm)
    x, dy = data((6, 4))
    x[2, 1] = value
    with np.errstate(invalid="ignore"):
        results = zip(fused(x, dy), plain(x, dy), strict=True)
    for a, b in results:
        assert np.array_equal(np.isfinite(a), np.isfinite(b))


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_as_accurate_as_the_plain_layer(both, kind):
    shape = (500, 64)
    (fused, layer), (plain, _) = both(kind, shape, rectify)
    x, dy = data(shape)
    x += 100
    gamma, beta = (v.get_value().astype("float64").ravel() for v in (layer.gamma, layer.beta))
    d = x.astype("float64") - x.mean(axis=0, dtype="float64")
    std = d.std(axis=0)
    s = std + 1e-4 if kind == "released" else np.sqrt(std**2 + 1e-4)
    slope = 1 / std if kind == "released" else 1 / s
    y = gamma * d / s + beta
    g = dy * (y > 0)
    dgamma = (g * d).sum(axis=0) / s
    dx = gamma / s * (g - g.mean(axis=0) - d * dgamma * slope / 500)
    exact = [np.maximum(y, 0), dx, dgamma, g.sum(axis=0)]
    for a, b, e in zip(fused(x, dy), plain(x, dy), exact, strict=True):
        error, plain_error = (abs(v.reshape(e.shape) - e).max() for v in (a, b))
        assert error <= 1.2 * plain_error + 1e-7 * abs(e).max()


@pytest.mark.parametrize("kind", KINDS)
def test_slope_at_zero_and_constant_channels(both, kind):
    """Lasagne's rectifier has slope 0.5 at zero; a unit that is always zero is not NaN."""
    (fused, layer), (plain, _) = both(kind, (4, 2), rectify)
    layer.beta.set_value(np.zeros_like(layer.beta.get_value()))
    layer.gamma.set_value(np.ones_like(layer.gamma.get_value()))
    x = np.float32([[0, 2], [0, 1], [0, 0], [0, -3]])
    y, dx, dgamma, dbeta = fused(x, np.ones((4, 2), "float32"))
    assert y[:, 0].tolist() == [0] * 4
    assert dx[:, 0].tolist() == [0] * 4
    assert dgamma.ravel()[0] == 0
    assert dbeta.ravel().tolist() == [2, 2.5]


@pytest.mark.parametrize("shape", [(40, 30), (6, 5, 4, 3)])
def test_inputs_of_any_strides(both, shape):
    (fused, _), (plain, _) = both("released", shape)
    x, dy = data(shape)
    expected = plain(x, dy)
    x2, dy2 = np.repeat(x, 2, axis=0)[::2], np.asfortranarray(dy)
    for a, b in zip(fused(x2, dy2), expected, strict=True):
        assert_near(a, b)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("shape", [(20, 7), (6, 7, 4, 3)])
def test_a_bias_moves_the_running_mean_only(shape, pooled):
    """A bias is folded into the mean, and its gradient is zero, even if max pooling follows it."""
    layer = KINDS["released"]((None, *shape[1:]), rectify)
    bias = theano.shared(np.linspace(-3, 3, 7).astype("float32"))
    x = tensor(len(shape))
    biased = x + bias.dimshuffle("x", 0, *["x"] * (len(shape) - 2))
    pool = (lambda x: pool_2d(x, (2, 1), ignore_border=True)) if pooled else (lambda x: x)
    y = layer.get_output_for(pool(biased))
    function = theano.function([x], [y, theano.grad(T.sum(y**2), bias)])
    assert not any(node.op == T.add for node in function.maker.fgraph.apply_nodes)
    other = KINDS["released"]((None, *shape[1:]), rectify)
    without = theano.function([x], [other.get_output_for(pool(x)), pool(x)])
    values, _ = data(shape)
    output, grad = function(values)
    expected, values = without(values)
    assert_near(output, expected)
    assert grad.tolist() == [0] * 7
    axes = (0, *range(2, len(shape)))
    assert_near(layer.mean.get_value().ravel(), 0.25 * (values.mean(axes) + bias.get_value()))
    assert_near(layer.std.get_value().ravel(), 0.75 + 0.25 * values.std(axes))


@pytest.mark.parametrize(
    "layer",
    [
        BatchNormLayer((None, 3, 4, 4), axes=(0, 3)),
        BatchNormLayer((None, 3), nonlinearity=lasagne.nonlinearities.tanh),
        CumulativeBatchNormLayer((None, 3, 4)),
    ],
)
def test_other_layers_stay_plain(layer):
    x = tensor(len(layer.input_shape))
    function = theano.function([x], layer.get_output_for(x))
    assert not any(isinstance(n.op, BatchNorm) for n in function.maker.fgraph.apply_nodes)


def test_mismatched_channels():
    x, gamma = T.matrix(), T.vector()
    function = theano.function([x, gamma], BatchNorm(0.1, False, False)(x, gamma, gamma)[0])
    with pytest.raises(
        ValueError, match=r"^batch normalization: 4 numbers for 3 channels, expected one each\n"
    ):
        function(np.ones((2, 3), "float32"), np.ones(4, "float32"))
