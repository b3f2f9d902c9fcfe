"""Training by the fused and by the plain graph gives the same curves up to the noise of seeds."""

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from lasagne.nonlinearities import identity, rectify
from sklearn.datasets import load_digits

import binary_connect
from batch_norm import BatchNormLayer


def network_of(seed, inputs):
    lasagne.random.set_rng(np.random.RandomState(seed))
    network = lasagne.layers.InputLayer((None, inputs))
    for units, nonlinearity in ((64, rectify), (64, rectify), (10, identity)):
        network = binary_connect.DenseLayer(network, units, nonlinearity=identity)
        network = BatchNormLayer(network, epsilon=1e-4, alpha=0.1, nonlinearity=nonlinearity)
    return network


def curves_of(seeds, x, y, epochs=12, batch=50):
    """Mean training loss of each epoch for each seed, stochastic BinaryConnect with Adam, by one
    compiled function."""
    network = network_of(0, x.shape[1])
    X, Y = T.matrix(), T.matrix()
    output = lasagne.layers.get_output(network, X)
    loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - Y * output)))
    W = lasagne.layers.get_all_params(network, binary=True)
    updates = lasagne.updates.adam(binary_connect.compute_grads(loss, network), W, 0.001)
    updates = binary_connect.clipping_scaling(updates, network)
    others = lasagne.layers.get_all_params(network, trainable=True)
    updates.update(lasagne.updates.adam(theano.grad(loss, others), others, 0.001))
    train = theano.function([X, Y], loss, updates=updates)
    parameters = lasagne.layers.get_all_params(network)
    moments = [state for state in updates if state not in parameters]
    curves = []
    for seed in seeds:
        initial = lasagne.layers.get_all_param_values(network_of(seed, x.shape[1]))
        lasagne.layers.set_all_param_values(network, initial)
        for state in moments:
            state.set_value(0 * state.get_value())
        rng = np.random.RandomState(seed)
        curve = []
        for _ in range(epochs):
            order = rng.permutation(len(x) // batch * batch).reshape(-1, batch)
            curve.append(np.mean([train(x[rows], y[rows]) for rows in order]))
        curves.append(curve)
    return np.array(curves)


@pytest.mark.slow
def test_curves_agree_within_seed_noise(monkeypatch):
    digits = load_digits()
    x = (digits.data / 16 - 0.5).astype("float32")
    y = (2 * np.eye(10)[digits.target] - 1).astype("float32")
    curves = {}
    for switch in ("1", "0"):
        monkeypatch.setenv("BINARYCONNECT_FUSED", switch)
        curves[switch] = curves_of(range(8), x, y)
    fused, plain = curves["1"], curves["0"]
    assert fused.mean(axis=0)[-1] < 0.5 * fused.mean(axis=0)[0]
    noise = np.sqrt((fused.var(axis=0, ddof=1) + plain.var(axis=0, ddof=1)) / 8)
    assert (abs(fused.mean(axis=0) - plain.mean(axis=0)) < 4 * noise).all()
