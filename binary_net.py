"""Binarized Neural Networks: activations binarized too (Courbariaux, Hubara, Soudry, El-Yaniv and
Bengio, 2016, arXiv:1602.02830).

Names, parameters and their order are those of the released module of 2016: a script written for it
runs on this one. Weights are binarized as in `binary_connect`, whose names are here too.
"""

import original_stack

import lasagne
import numpy as np
import theano
import theano.tensor as T
from theano.scalar import BinaryScalarOp, upcast_out

import binary_connect
from binary_connect import (
    Conv2DLayer,
    DenseLayer,
    binarization,
    clipping_scaling,
    compute_grads,
    hard_sigmoid,
)
from shift_based import ShiftBatchNormLayer

__all__ = [
    "Conv2DLayer",
    "DenseLayer",
    "StochasticSignLayer",
    "binarization",
    "binary_sigmoid_unit",
    "binary_tanh_unit",
    "clipping_scaling",
    "compute_grads",
    "hard_sigmoid",
    "normalize_and_binarize",
    "scale_pixels",
    "train",
]


class _StraightThrough(BinaryScalarOp):
    """Of (x, b): b, with the gradient of clip(x, -1, 1) for x and none for b."""

    def impl(self, x, b):
        return b

    def c_code(self, node, name, inputs, outputs, sub):
        return f"{outputs[0]} = {inputs[1]};"

    def grad(self, inputs, output_grads):
        x, b = inputs
        inside = theano.scalar.cast(theano.scalar.le(abs(x), 1), output_grads[0].dtype)
        return [output_grads[0] * inside, b.zeros_like()]

    def c_code_cache_version(self):
        return (1,)


_straight_through = T.Elemwise(
    _StraightThrough(upcast_out, name="straight_through"), name="straight_through"
)


def binary_tanh_unit(x):
    """Sign of x, -1 or +1, elementwise; its gradient is taken for 1 where |x| <= 1, else 0
    (section 1.3, equation 4).

    Zero is +1, as in the released code (DEVIATIONS.md, 1).

    Examples
    --------
    >>> x = T.constant(np.float32([-2.0, -0.5, 0.0, 1.0]))
    >>> y = binary_tanh_unit(x)
    >>> y.eval().tolist(), theano.grad(y.sum(), x).eval().tolist()
    ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    one = np.float32(1)
    return _straight_through(x, T.switch(T.ge(hard_sigmoid(x), np.float32(0.5)), one, -one))


def binary_sigmoid_unit(x):
    """1 where `binary_tanh_unit` gives 1, else 0, elementwise, with half of its gradient."""
    return (binary_tanh_unit(x) + np.float32(1)) / np.float32(2)


class StochasticSignLayer(lasagne.layers.Layer):
    """Binarizes activations: +1 with probability hard_sigmoid(x), else -1, drawn anew at each
    evaluation; `binary_tanh_unit` at test time (section 1.1, equation 2)."""

    def __init__(self, incoming, **kwargs):
        super().__init__(incoming, **kwargs)
        self._srng = binary_connect.random_stream()

    def get_output_for(self, input, deterministic=False, **kwargs):
        if deterministic:
            return binary_tanh_unit(input)
        drawn = binarization(input, 1.0, stochastic=True, srng=self._srng)
        return _straight_through(input, theano.gradient.disconnected_grad(drawn))


def scale_pixels(x):
    """x / 255: from sums over the whole numbers 2 pixel - 255, which float32 holds exactly, to
    those over pixels scaled to [-1, 1] (DEVIATIONS.md, 15)."""
    return x / np.float32(255)


def normalize_and_binarize(network, hidden, shift_based=False):
    """`network` with batch normalization and, if `hidden`, binary activations.

    Parameters
    ----------
    network : Layer
    hidden : bool
        False for the output layer, which is only normalized.
    shift_based : bool
        As in the Torch7 experiments: shift-based batch normalization, and activations drawn at
        training time; else as in the Theano experiments.

    Returns
    -------
    Layer
    """
    if shift_based:
        network = ShiftBatchNormLayer(network, epsilon=1e-4, alpha=0.1)
        return StochasticSignLayer(network) if hidden else network
    network = lasagne.layers.BatchNormLayer(network, epsilon=1e-4, alpha=0.1)
    return lasagne.layers.NonlinearityLayer(network, binary_tanh_unit) if hidden else network


def train(
    train_fn,
    val_fn,
    model,
    batch_size,
    LR_start,
    LR_decay,
    num_epochs,
    X_train,
    y_train,
    X_val,
    y_val,
    X_test,
    y_test,
    save_path=None,
    shuffle_parts=1,
):
    """Train as the released scripts of 2016 do: `binary_connect.train`, which see, and

    Parameters
    ----------
    model : Layer
        The output layer.
    save_path : path, optional
        Where the parameters of the best epoch go, in an .npz file (real-valued weights, in the
        order of ``lasagne.layers.get_all_param_values``).
    """

    def save():
        if save_path is not None:
            np.savez(save_path, *lasagne.layers.get_all_param_values(model))

    binary_connect.train(
        train_fn,
        val_fn,
        batch_size,
        LR_start,
        LR_decay,
        num_epochs,
        X_train,
        y_train,
        X_val,
        y_val,
        X_test,
        y_test,
        save,
        shuffle_parts,
    )
