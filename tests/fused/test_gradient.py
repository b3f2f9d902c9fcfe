"""Updates of weights whose inputs are binary, against products in double precision."""

from original_stack import machine

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near, printed_with_threads

import binary_net
from fused.gradient import GradientUpdate
from fused.product import INSTRUCTIONS

pytestmark = pytest.mark.skipif(
    not machine.has(*INSTRUCTIONS), reason="this processor has no AVX-512"
)

SHAPES = [
    (1, 1, 1),
    (3, 7, 5),
    (4, 16, 16),
    (5, 17, 33),
    (64, 33, 4097),
    (100, 130, 1040),
    (131, 129, 15),
    (260, 3, 1025),
]
ALL, SOME = [-1.0, 1.0], [-2.0, 0.0, 2.0]


def sgd(X, rows, columns):
    """A function of x and dY that subtracts X(x)^T dY from weights and gives X, and the weights."""
    W = theano.shared(np.zeros((rows, columns), "float32"))
    x, dY = T.matrix(), T.matrix()
    X = X(x)
    function = theano.function([x, dY], X, updates=[(W, W - T.dot(X.T, dY))])
    return function, W


def fused(function):
    return [n for n in function.maker.fgraph.apply_nodes if isinstance(n.op, GradientUpdate)]


def binary(x):
    """Inputs as they are, which the rewrite takes for binary ones."""
    return T.switch(T.ge(x, 0), np.float32(1), np.float32(-1)) * abs(x)


@pytest.mark.parametrize("values", [ALL, SOME])
@pytest.mark.parametrize(("samples", "rows", "columns"), SHAPES)
def test_gradient(samples, rows, columns, values):
    rng = np.random.RandomState(0)
    function, W = sgd(binary, rows, columns)
    assert len(fused(function)) == 1
    X = rng.choice(values, (samples, rows)).astype("float32")
    dY = rng.normal(size=(samples, columns)).astype("float32")
    function(X, dY)
    assert_near(W.get_value(), -X.T.astype("float64") @ dY)


@pytest.mark.parametrize("values", [ALL, SOME])
def test_gradient_of_integers_is_exact(values):
    rng = np.random.RandomState(1)
    function, W = sgd(binary, 150, 70)
    X = rng.choice(values, (301, 150)).astype("float32")
    dY = rng.randint(-255, 256, (301, 70)).astype("float32")
    function(X, dY)
    assert np.array_equal(W.get_value(), -X.T @ dY)


@pytest.mark.parametrize(("samples", "rows", "columns"), SHAPES)
def test_inputs_of_any_value(samples, rows, columns):
    rng = np.random.RandomState(2)
    function, W = sgd(binary, rows, columns)
    X = rng.normal(size=(samples, rows)).astype("float32")
    dY = rng.normal(size=(samples, columns)).astype("float32")
    function(X, dY)
    assert_near(W.get_value(), -X.T.astype("float64") @ dY)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("values", [ALL, SOME])
def test_special_values(special, values):
    rng = np.random.RandomState(3)
    X = rng.choice(values, (20, 40)).astype("float32")
    dY = rng.normal(size=(20, 30)).astype("float32")
    for array, place in ((X, (3, 5)), (dY, (7, 2))):
        function, W = sgd(binary, 40, 30)
        changed = array.copy()
        changed[place] = special
        x, dy = (changed, dY) if array is X else (X, changed)
        function(x, dy)
        with np.errstate(invalid="ignore"):
            expected = -x.T @ dy
        assert np.array_equal(np.isnan(W.get_value()), np.isnan(expected))
        assert np.array_equal(np.isinf(W.get_value()), np.isinf(expected))


@pytest.mark.parametrize(
    ("X", "dY", "expected"),
    [
        ([[-1]], [[2e38]], 2e38),
        ([[-1], [1]], [[1.8e38], [1e38]], 8e37),
        ([[2], [0]], [[1e38], [1e38]], -2e38),
        ([[-np.inf]], [[1]], np.inf),
    ],
)
def test_sums_overflow_only_if_the_gradient_does(X, dY, expected):
    function, W = sgd(binary, 1, 1)
    function(np.float32(X), np.float32(dY))
    np.testing.assert_allclose(W.get_value(), [[expected]], rtol=1e-6)


def test_any_strides_and_no_samples():
    rng = np.random.RandomState(4)
    X = rng.choice(ALL, (24, 50)).astype("float32")
    dY = rng.normal(size=(24, 40)).astype("float32")
    results = []
    for x, dy in ((X, dY), (np.asfortranarray(X), dY.repeat(2, axis=1)[:, ::2])):
        function, W = sgd(binary, 50, 40)
        function(x, dy)
        results.append(W.get_value())
    assert np.array_equal(*results)
    function(X[:0], dY[:0])
    assert np.array_equal(W.get_value(), results[0])


def test_images_as_rows():
    function, W = sgd(lambda x: binary(x.reshape((-1, 3, 2, 2))).flatten(2), 12, 5)
    assert len(fused(function)) == 1
    rng = np.random.RandomState(5)
    X = rng.choice(ALL, (8, 12)).astype("float32")
    dY = rng.normal(size=(8, 5)).astype("float32")
    function(X, dY)
    assert_near(W.get_value(), -X.T.astype("float64") @ dY)


def test_another_shape():
    function, _ = sgd(binary, 3, 2)
    with pytest.raises(
        ValueError,
        match="inputs 5 x 4 and outputs 5 x 2 give no gradient of weights 3 x 2",
    ):
        function(np.ones((5, 4), "float32"), np.ones((5, 2), "float32"))


@pytest.mark.parametrize("dropout", [0, 0.5])
def test_layers_of_binary_activations(monkeypatch, dropout):
    """Training with Adam equals that of the plain graph."""

    def train():
        lasagne.random.set_rng(np.random.RandomState(5))
        x, y, LR = T.matrix(), T.matrix(), T.scalar()
        network = lasagne.layers.InputLayer((None, 30), x)
        for units in (40, 20):
            network = binary_net.DenseLayer(
                network, units, H=1.0, stochastic=False, nonlinearity=None
            )
            if units == 40:
                network = lasagne.layers.NonlinearityLayer(network, binary_net.binary_tanh_unit)
                if dropout:
                    network = lasagne.layers.DropoutLayer(network, p=dropout)
        loss = ((lasagne.layers.get_output(network) / 40 - y) ** 2).sum()
        W = lasagne.layers.get_all_params(network, binary=True)
        gradients = binary_net.compute_grads(loss, network)
        updates = lasagne.updates.adam(gradients, W, LR)
        function = theano.function([x, y, LR], loss, updates=updates)
        rng = np.random.RandomState(6)
        losses = [
            function(
                rng.normal(size=(16, 30)).astype("float32"),
                rng.normal(size=(16, 20)).astype("float32"),
                0.001,
            )
            for _ in range(5)
        ]
        return function, [w.get_value() for w in W], losses

    function, *ours = train()
    assert len(fused(function)) == 1
    monkeypatch.setenv("BINARYCONNECT_FUSED", "0")
    plain, *theirs = train()
    assert not fused(plain)
    for a, b in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_other_gradients_stay():
    real, _ = sgd(lambda x: x, 3, 2)
    assert not fused(real)
    W = theano.shared(np.zeros((3, 2), "float32"))
    x, dY = T.matrix(), T.matrix()
    gradient = T.dot(binary(x).T, dY)
    function = theano.function([x, dY], gradient, updates=[(W, W - gradient)])
    assert not fused(function)


def test_weights_that_are_a_vector():
    W = theano.shared(np.zeros(3, "float32"))
    x, dY = T.matrix(), T.vector()
    X = binary(x)
    function = theano.function([x, dY], T.dot(X, W), updates=[(W, W - T.dot(X.T, dY))])
    assert not fused(function)
    function(np.float32([[1, -1, 1], [1, 1, -1]]), np.float32([1, 2]))
    assert W.get_value().tolist() == [-3, -1, 1]


def test_the_number_of_threads_does_not_matter():
    """That of a step with products, their gradients, the update and sums of biases."""
    code = (
        "import original_stack, hashlib, numpy as np, theano, theano.tensor as T, lasagne\n"
        "import binary_net\n"
        "lasagne.random.set_rng(np.random.RandomState(1))\n"
        "x = T.matrix()\n"
        "network = lasagne.layers.InputLayer((None, 50), x)\n"
        "for units in (300, 200):\n"
        "    network = binary_net.DenseLayer(network, units, H=1., stochastic=False,\n"
        "        nonlinearity=binary_net.binary_tanh_unit if units == 300 else None)\n"
        "loss = (lasagne.layers.get_output(network) ** 2).sum()\n"
        "W = lasagne.layers.get_all_params(network, binary=True)\n"
        "b = lasagne.layers.get_all_params(network, trainable=True, binary=False)\n"
        "updates = lasagne.updates.adam(binary_net.compute_grads(loss, network), W, .1)\n"
        "updates.update(lasagne.updates.sgd(loss, b, .1))\n"
        "f = theano.function([x], loss, updates=updates)\n"
        "print(sorted({type(n.op).__name__ for n in f.maker.fgraph.toposort()}))\n"
        "f(np.random.RandomState(0).normal(size=(130, 50)).astype('float32'))\n"
        "print(*(hashlib.sha256(v.get_value()).hexdigest() for v in W + b))"
    )
    (printed,) = printed_with_threads(code)
    for name in ("BinaryProduct", "ChannelSum", "GradientUpdate", "PackSigns"):
        assert repr(name) in printed
