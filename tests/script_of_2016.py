"""A script for the module of 2016: it imports Theano and Lasagne first, and no original_stack."""

import numpy as np

np.random.seed(1234)

import theano
import theano.tensor as T

import lasagne

import binary_net

from collections import OrderedDict

lasagne.random.set_rng(np.random.RandomState(np.random.randint(1, 2147462579)))
X_all = np.random.randn(400, 1, 8, 8).astype("float32")
labels = (X_all[:, 0, :4].sum(axis=(1, 2)) > 0).astype("int64")
y_all = np.float32(2 * np.eye(2)[labels] - 1)

alpha, epsilon = 0.1, 1e-4
activation = binary_net.binary_tanh_unit
input = T.tensor4("inputs")
target = T.matrix("targets")
LR = T.scalar("LR", dtype=theano.config.floatX)
cnn = lasagne.layers.InputLayer(shape=(None, 1, 8, 8), input_var=input)
cnn = lasagne.layers.DropoutLayer(cnn, p=0.1)
cnn = binary_net.Conv2DLayer(
    cnn,
    binary=True,
    stochastic=False,
    H=1.0,
    W_LR_scale="Glorot",
    num_filters=16,
    filter_size=(3, 3),
    pad=1,
    flip_filters=False,
    nonlinearity=lasagne.nonlinearities.identity,
)
cnn = lasagne.layers.MaxPool2DLayer(cnn, pool_size=(2, 2))
cnn = lasagne.layers.BatchNormLayer(cnn, epsilon=epsilon, alpha=alpha)
cnn = lasagne.layers.NonlinearityLayer(cnn, nonlinearity=activation)
cnn = binary_net.DenseLayer(
    cnn,
    binary=True,
    stochastic=False,
    H=1.0,
    W_LR_scale="Glorot",
    nonlinearity=lasagne.nonlinearities.identity,
    num_units=64,
)
cnn = lasagne.layers.BatchNormLayer(cnn, epsilon=epsilon, alpha=alpha)
cnn = lasagne.layers.NonlinearityLayer(cnn, nonlinearity=binary_net.binary_sigmoid_unit)
cnn = binary_net.DenseLayer(
    cnn,
    binary=True,
    stochastic=False,
    H=1.0,
    W_LR_scale="Glorot",
    nonlinearity=lasagne.nonlinearities.identity,
    num_units=2,
)
cnn = lasagne.layers.BatchNormLayer(cnn, epsilon=epsilon, alpha=alpha)

train_output = lasagne.layers.get_output(cnn, deterministic=False)
loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - target * train_output)))
W = lasagne.layers.get_all_params(cnn, binary=True)
W_grads = binary_net.compute_grads(loss, cnn)
updates = lasagne.updates.adam(loss_or_grads=W_grads, params=W, learning_rate=LR)
updates = binary_net.clipping_scaling(updates, cnn)
params = lasagne.layers.get_all_params(cnn, trainable=True, binary=False)
updates = OrderedDict(
    list(updates.items())
    + list(lasagne.updates.adam(loss_or_grads=loss, params=params, learning_rate=LR).items())
)
test_output = lasagne.layers.get_output(cnn, deterministic=True)
test_loss = T.mean(T.sqr(T.maximum(0.0, 1.0 - target * test_output)))
test_err = T.mean(T.neq(T.argmax(test_output, axis=1), T.argmax(target, axis=1)))
train_fn = theano.function([input, target, LR], loss, updates=updates)
val_fn = theano.function([input, target], [test_loss, test_err])

binary_net.train(
    train_fn,
    val_fn,
    cnn,
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
    save_path="parameters.npz",
    shuffle_parts=1,
)
