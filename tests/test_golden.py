"""Whole networks against values of the 2015 code: outputs, gradients, parameters, statistics."""

from collections import OrderedDict

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near
from lasagne.layers import InputLayer, MaxPool2DLayer, get_all_layers, get_all_params, get_output
from lasagne.nonlinearities import identity, rectify

import batch_norm
import binary_connect
import binary_net
import shift_based
from fused.op import enabled
from reproduction.training.model import OPTIMIZERS


@pytest.fixture(params=["1", "0"], ids=["fused", "plain"], autouse=True)
def graph(request, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", request.param)


def released_mlp(binary):
    net = InputLayer((None, 1, 6, 7))
    for units, nonlinearity in ((13, rectify), (13, rectify), (10, identity)):
        net = binary_connect.DenseLayer(
            net, units, binary=binary, stochastic=False, nonlinearity=identity
        )
        net = batch_norm.BatchNormLayer(net, epsilon=1e-4, alpha=0.15, nonlinearity=nonlinearity)
    return net


def released_cnn(binary):
    options = {"binary": binary, "stochastic": False, "nonlinearity": identity}
    normalization = {"epsilon": 1e-4, "alpha": 0.1}
    net = InputLayer((None, 3, 8, 8))
    for filters in (5, 6):
        for pool in (False, True):
            net = binary_connect.Conv2DLayer(net, filters, (3, 3), pad=1, **options)
            if pool:
                net = MaxPool2DLayer(net, (2, 2))
            net = batch_norm.BatchNormLayer(net, nonlinearity=rectify, **normalization)
    for units, nonlinearity in ((9, rectify), (10, identity)):
        net = binary_connect.DenseLayer(net, units, **options)
        net = batch_norm.BatchNormLayer(net, nonlinearity=nonlinearity, **normalization)
    return net


def bnn_mlp(binary):
    net = InputLayer((None, 1, 6, 7))
    for units, hidden in ((13, True), (13, True), (10, False)):
        net = binary_net.DenseLayer(
            net, units, binary=binary, stochastic=False, nonlinearity=identity
        )
        net = binary_net.normalize_and_binarize(net, hidden)
    return net


def parameters(network, values, state):
    """(shared variable, golden value) of each parameter of each layer at `state`."""
    for i, layer in enumerate(get_all_layers(network)):
        for param in layer.get_params():
            yield param, values[f"{state}/layer{i:02d}_{param.name}"]


# Without optimization, Theano's own convolution does not run; in Python, the fused ops do not.
PYTHON = {
    "fast_compile": theano.Mode(linker="py", optimizer="fast_compile"),
    "no optimization": theano.Mode(linker="py", optimizer=None),
}


NETWORKS = {
    "mlp_det_adam": (released_mlp, "adam", True),
    "mlp_det_adam_noscale": (released_mlp, "adam", True),
    "mlp_det_sgd": (released_mlp, "sgd", True),
    "mlp_det_nesterov": (released_mlp, "nesterov", True),
    "mlp_none_adam": (released_mlp, "adam", False),
    "cnn_det_adam": (released_cnn, "adam", True),
    "cnn_none_sgd": (released_cnn, "sgd", False),
    "bnn_mlp_adam": (bnn_mlp, "adam", True),
}


# Networks whose plain ops are those of mlp_det_adam, but for the update; they compile nothing.
SAME_PLAIN_OPS = {"mlp_det_adam_noscale", "mlp_det_sgd", "mlp_det_nesterov", "mlp_none_adam"}


@pytest.mark.parametrize("name", NETWORKS)
def test_released_training(golden, name):
    in_python = not enabled() and name in SAME_PLAIN_OPS
    check_released_training(golden, name, theano.Mode(linker="py") if in_python else None)


@pytest.mark.parametrize("name", ["mlp_det_adam", "bnn_mlp_adam"])
@pytest.mark.parametrize("mode", PYTHON)
@pytest.mark.parametrize("graph", ["0"], ids=["plain"], indirect=True)
def test_released_training_with_less_optimization(golden, name, mode):
    check_released_training(golden, name, PYTHON[mode])


def check_released_training(golden, name, mode=None):
    build, optimizer, binary = NETWORKS[name]
    values = golden(name)
    network = build(binary)
    if name.endswith("noscale"):
        for layer in get_all_layers(network):
            layer.W_LR_scale = 1.0
    X = T.tensor4("X")
    Y, LR = T.matrix("Y"), T.scalar("LR")
    output = get_output(network, X)
    loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - Y * output)))
    test_output = get_output(network, X, deterministic=True)
    optimize = OPTIMIZERS[optimizer]
    if binary:
        W_grads = binary_connect.compute_grads(loss, network)
        W = get_all_params(network, binary=True)
        updates = binary_connect.clipping_scaling(optimize(W_grads, W, LR), network)
        others = get_all_params(network, trainable=True)
        updates.update(optimize(theano.grad(loss, others), others, LR))
    else:
        W = [p for p in get_all_params(network) if p.name == "W"]
        W_grads = theano.grad(loss, W)
        others = get_all_params(network, trainable=True)
        updates = optimize(theano.grad(loss, others), others, LR)
    train_fn = theano.function([X, Y, LR], [loss, output, *W_grads], updates=updates, mode=mode)
    test_fn = theano.function([X], test_output, mode=mode)

    for param, value in parameters(network, values, "init"):
        param.set_value(value)
    for step, (x, y) in enumerate(zip(values["X"], values["Y"], strict=True)):
        loss_value, output_value, *grads = train_fn(x, y, values["LR"])
        assert_near(loss_value, values[f"step{step}/loss"])
        assert_near(output_value, values[f"step{step}/output"])
        for i, grad in enumerate(grads):
            assert_near(grad, values[f"step{step}/grad_W{i}"])
        for param, value in parameters(network, values, f"after{step + 1}"):
            if param.name == "b":
                # Under batch normalization, the gradient of a bias is only rounding noise, which
                # Adam scales up to the learning rate: take the values of the golden run.
                param.set_value(value)
            else:
                assert_near(param.get_value(), value)
        last = f"after{step + 1}/test_output"
        if last in values:
            assert_near(test_fn(values["X"][0]), values[last])
    assert last in values


PUBLISHED_NAMES = {"W": "W", "beta": "b", "gamma": "a", "mean": "mean", "var": "var"}


@pytest.mark.parametrize(
    ("name", "binary"), [("published_mlp_det_sgd", True), ("published_mlp_none_sgd", False)]
)
def test_published_training(golden, name, binary):
    values = golden(name)
    net = InputLayer((None, 1, 6, 7))
    dense_layers = []
    for units in (13, 13, 10):
        H = values[f"init/layer{len(dense_layers)}_W0"]
        net = binary_connect.DenseLayer(
            net,
            units,
            binary=binary,
            stochastic=False,
            H=H,
            W_LR_scale=1.0,
            b=None,
            nonlinearity=identity,
        )
        dense_layers.append(net)
        net = batch_norm.CumulativeBatchNormLayer(net)
        if units != 10:
            net = lasagne.layers.NonlinearityLayer(net, rectify)
    for layer, (inputs, units) in zip(dense_layers, ((42, 13), (13, 13), (13, 10)), strict=True):
        assert_near(layer.H, np.sqrt(6 / (inputs + units)) / 2)

    def parameters(state):
        numbers = {}
        for layer in get_all_layers(net):
            for param in layer.get_params():
                i = numbers.setdefault(param.name, 0)
                numbers[param.name] += 1
                yield param, values[f"{state}/layer{i}_{PUBLISHED_NAMES[param.name]}"]

    X, Y, LR, count = T.tensor4("X"), T.matrix("Y"), T.scalar("LR"), T.scalar("count")
    output = get_output(net, X)
    loss = T.mean(T.sum(T.sqr(T.maximum(0.0, 1.0 - Y * output)), axis=1))
    if binary:
        W = get_all_params(net, binary=True)
        updates = lasagne.updates.sgd(binary_connect.compute_grads(loss, net), W, LR)
        updates = binary_connect.clipping_scaling(updates, net)
    else:
        updates = OrderedDict()
    others = get_all_params(net, trainable=True)
    updates.update(lasagne.updates.sgd(loss, others, LR))
    train_fn = theano.function([X, Y, LR], [loss, output], updates=updates)
    first_fn, next_fn = (
        theano.function(
            [X, count],
            updates=batch_norm.cumulative_statistics(
                net, count, inputs=X, deterministic=True, batch_norm_use_averages=averages
            ),
        )
        for averages in (False, True)
    )
    test_fn = theano.function([X], get_output(net, X, deterministic=True))

    for param, value in parameters("init"):
        param.set_value(value)
    for step, (x, y) in enumerate(zip(values["X"], values["Y"], strict=True)):
        loss_value, output_value = train_fn(x, y, values["LR"])
        assert_near(loss_value, values[f"step{step}/loss"])
        assert_near(output_value, values[f"step{step}/output"])
        for param, value in parameters(f"after{step + 1}"):
            assert_near(param.get_value(), value)
    batches = 0
    for part in (values["X"][:3], values["X"][3:]):
        for function, x in [(first_fn, part[0])] + [(next_fn, x) for x in part]:
            batches += 1
            function(x, batches)
    for param, value in parameters("bn_cumulative"):
        assert_near(param.get_value(), value)
    assert_near(test_fn(values["X"][0]), values["bn_cumulative/test_output"])


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["1"], ids=["fused"], indirect=True)
@pytest.mark.parametrize(
    "build",
    [
        lambda below: binary_connect.DenseLayer(below, 4, stochastic=False),
        lambda below: binary_connect.DenseLayer(below, 4),
        lambda below: binary_connect.Conv2DLayer(below, 16, 3, pad=1),
        lambda below: batch_norm.BatchNormLayer(below, nonlinearity=rectify),
        lambda below: batch_norm.CumulativeBatchNormLayer(lasagne.layers.FlattenLayer(below)),
        binary_net.BatchNormLayer,
        binary_net.StochasticSignLayer,
        shift_based.ShiftBatchNormLayer,
    ],
)
def test_every_layer_has_values_while_its_graph_is_built(build):
    with theano.configparser.change_flags(compute_test_value="raise"):
        X = T.tensor4()
        X.tag.test_value = np.random.RandomState(0).randn(3, 2, 5, 4).astype(np.float32)
        network = build(InputLayer((None, 2, 5, 4)))
        parameters = get_all_params(network, trainable=True)
        gradients = theano.grad(T.sum(get_output(network, X) ** 2), [X, *parameters])
    for variable, gradient in zip([X, *parameters], gradients, strict=True):
        value = variable.tag.test_value if variable is X else variable.get_value()
        assert gradient.tag.test_value.shape == value.shape
