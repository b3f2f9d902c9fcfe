import doctest
import inspect
import sys

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near
from lasagne.layers import DenseLayer, InputLayer, get_output

from batch_norm import (
    BatchNormLayer,
    CumulativeBatchNormLayer,
    batch_norm,
    cumulative_statistics,
)

module = sys.modules[BatchNormLayer.__module__]
x = np.random.RandomState(0).randn(8, 3, 4, 5).astype(np.float32) * 2 + 1


@pytest.mark.parametrize(
    ("axes", "reduced"), [(None, (0, 2, 3)), (0, (0,)), ((0, -1), (0, 3)), ([0, 2, 3], (0, 2, 3))]
)
def test_training_output_and_running_statistics(axes, reduced):
    below = InputLayer((8, 3, 4, 5))
    layer = BatchNormLayer(below, axes, 0.5, 0.25, nonlinearity=lasagne.nonlinearities.rectify)
    X = T.tensor4()
    get_output(layer, X, deterministic=True)
    function = theano.function([X], get_output(layer, X))
    mean, std = x.mean(reduced, keepdims=True), x.std(reduced, keepdims=True)
    for _ in range(2):
        assert_near(function(x), np.maximum((x - mean) / (std + 0.5), 0))
    assert_near(layer.mean.get_value(), (1 - 0.75**2) * mean)
    assert_near(layer.std.get_value(), 0.75**2 + (1 - 0.75**2) * std)
    layer.gamma.set_value(layer.gamma.get_value() * 3)
    layer.beta.set_value(layer.beta.get_value() - 1)
    output = get_output(layer, X, deterministic=True).eval({X: x})
    mean, std = layer.mean.get_value(), layer.std.get_value()
    assert_near(output, np.maximum(3 * (x - mean) / (std + 0.5) - 1, 0))


@pytest.mark.parametrize("fused", ["1", "0"])
def test_running_statistics_with_a_given_alpha(monkeypatch, fused):
    monkeypatch.setenv("BINARYCONNECT_FUSED", fused)
    layer = BatchNormLayer((8, 3, 4, 5), epsilon=0.5)
    X, alpha = T.tensor4(), T.scalar()
    at_test = {"deterministic": True, "batch_norm_use_averages": False}
    output = layer.get_output_for(X, **at_test, batch_norm_alpha=alpha)
    function = theano.function([X, alpha], output)
    axes = (0, 2, 3)
    batches = x, 3 * x + 1, x[:5] - 2
    for i, batch in enumerate(batches):
        mean, std = batch.mean(axes, keepdims=True), batch.std(axes, keepdims=True)
        assert_near(function(batch, 1 / (i + 1)), (batch - mean) / (std + 0.5))
    # With weights 1, 1/2, 1/3, ... the running statistics are the means over the batches.
    means = [batch.mean(axes, keepdims=True) for batch in batches]
    assert_near(layer.mean.get_value(), np.mean(means, axis=0))
    stds = [batch.std(axes, keepdims=True) for batch in batches]
    assert_near(layer.std.get_value(), np.mean(stds, axis=0))


def test_training_output_without_optimization():
    X = T.tensor4()
    output = get_output(BatchNormLayer(InputLayer((None, 3, 4, 5)), epsilon=0.5), X)
    function = theano.function([X], output, mode=theano.Mode(linker="cvm", optimizer=None))
    axes = (0, 2, 3)
    expected = (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 0.5)
    assert_near(function(x), expected)


def test_parameters():
    layer = BatchNormLayer((None, 7))
    assert [p.name for p in layer.get_params()] == ["mean", "std", "beta", "gamma"]
    assert [p.name for p in layer.get_params(trainable=True)] == ["beta", "gamma"]
    assert [p.name for p in layer.get_params(regularizable=True)] == ["beta"]
    assert layer.gamma.get_value().shape == (1, 7)
    assert (layer.epsilon, layer.alpha) == (0.01, 0.5)


def test_unknown_size():
    with pytest.raises(ValueError, match="needs the size of every axis") as caught:
        BatchNormLayer((None, None, 4, 4))
    assert str(caught.value) == (
        "BatchNormLayer needs the size of every axis that it does not normalize over; given "
        "input_shape=(None, None, 4, 4), axes=(0, 2, 3)"
    )


def test_batch_norm_takes_over_the_nonlinearity_and_removes_the_bias():
    dense = DenseLayer((None, 4), 3, nonlinearity=lasagne.nonlinearities.tanh)
    layer = batch_norm(dense)
    assert layer.input_layer is dense
    assert layer.nonlinearity is lasagne.nonlinearities.tanh
    assert dense.nonlinearity is lasagne.nonlinearities.identity
    assert dense.b is None
    assert [p.name for p in dense.get_params()] == ["W"]


@pytest.mark.parametrize("fused", ["1", "0"])
def test_cumulative_statistics(monkeypatch, fused):
    monkeypatch.setenv("BINARYCONNECT_FUSED", fused)
    net = CumulativeBatchNormLayer(InputLayer((None, 3)), epsilon=0.5)
    X, count = T.matrix(), T.scalar()
    update = theano.function([X, count], updates=cumulative_statistics(net, count, inputs=X))
    batches = x[:, :, 0, 0], x[:, :, 0, 1], x[:5, :, 0, 2]
    for i, batch in enumerate(batches):
        update(batch, i + 1)
    means, variances = zip(*((b.mean(0), b.var(0)) for b in batches), strict=True)
    assert_near(net.mean.get_value(), np.mean(means, axis=0))
    assert_near(net.var.get_value(), np.mean(variances, axis=0))
    for averages, mean, var in (
        (True, np.mean(means, axis=0), np.mean(variances, axis=0)),
        (False, means[0], variances[0]),
    ):
        output = get_output(net, X, deterministic=averages).eval({X: batches[0]})
        assert_near(output, (batches[0] - mean) / np.sqrt(var + 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BatchNormLayer", "incoming axes epsilon alpha nonlinearity kwargs"),
        ("batch_norm", "layer"),
    ],
)
def test_names_and_parameters_of_2015(name, expected):
    parameters = list(inspect.signature(vars(module)[name]).parameters)
    assert parameters == expected.split()


def test_examples():
    assert doctest.testmod(module) == (0, 6)
