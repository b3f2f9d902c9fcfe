"""A script for the modules of 2015: it imports Theano and Lasagne first, and no original_stack."""

import numpy as np

np.random.seed(1234)

import theano
import theano.tensor as T

import lasagne

import batch_norm
import binary_connect

from collections import OrderedDict

from lasagne.regularization import l2  # noqa: F401
from theano.tensor.signal.downsample import max_pool_2d  # noqa: F401

lasagne.random.set_rng(np.random.RandomState(1))
X_all = np.random.randn(400, 1, 8, 8).astype("float32")
labels = (X_all[:, 0, :4].sum(axis=(1, 2)) > 0).astype("int64")
y_all = np.float32(2 * np.eye(2)[labels] - 1)

input = T.tensor4("inputs")
target = T.matrix("targets")
LR = T.scalar("LR", dtype=theano.config.floatX)
mlp = lasagne.layers.InputLayer(shape=(None, 1, 8, 8), input_var=input)
mlp = binary_connect.Conv2DLayer(
    mlp,
    num_filters=4,
    filter_size=(3, 3),
    pad=1,
    binary=True,
    stochastic=False,
    H=1.0,
    nonlinearity=lasagne.nonlinearities.identity,
)
mlp = lasagne.layers.MaxPool2DLayer(mlp, pool_size=(2, 2))
mlp = batch_norm.BatchNormLayer(
    mlp, epsilon=1e-4, alpha=0.1, nonlinearity=lasagne.nonlinearities.rectify
)
mlp = binary_connect.DenseLayer(
    mlp,
    binary=True,
    stochastic=True,
    H="Glorot",
    num_units=16,
    W_LR_scale="Glorot",
    nonlinearity=lasagne.nonlinearities.identity,
)
mlp = batch_norm.batch_norm(mlp)
mlp = binary_connect.DenseLayer(
    mlp, binary=False, num_units=2, nonlinearity=lasagne.nonlinearities.identity
)

train_output = lasagne.layers.get_output(mlp, deterministic=False)
loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - target * train_output)))
W = lasagne.layers.get_all_params(mlp, binary=True)
W_grads = binary_connect.compute_grads(loss, mlp)
updates = lasagne.updates.adam(loss_or_grads=W_grads, params=W, learning_rate=LR)
updates = binary_connect.clipping_scaling(updates, mlp)
params = lasagne.layers.get_all_params(mlp, trainable=True, binary=False)
updates = OrderedDict(
    list(updates.items())
    + list(lasagne.updates.adam(loss_or_grads=loss, params=params, learning_rate=LR).items())
)
test_output = lasagne.layers.get_output(mlp, deterministic=True)
test_loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - target * test_output)))
test_err = T.mean(T.neq(T.argmax(test_output, axis=1), T.argmax(target, axis=1)))
train_fn = theano.function([input, target, LR], loss, updates=updates)
val_fn = theano.function([input, target], [test_loss, test_err])

binary_connect.train(
    train_fn,
    val_fn,
    50,
    0.01,
    0.8,
    10,
    X_all[:200],
    y_all[:200],
    X_all[200:300],
    y_all[200:300],
    X_all[300:],
    y_all[300:],
)
