"""Binarized Neural Networks: activations are binarized too.

Courbariaux, Hubara, Soudry, El-Yaniv and Bengio, 2016, arXiv:1602.02830. Names, parameters and the
order of the parameters are the same as in the released module of 2016: a script written for that
module runs on this one. Weights are binarized as in `binary_connect`, and this module offers the
names of `binary_connect` too.
"""

import math

import original_stack

import lasagne
import numpy as np
import theano
import theano.tensor as T
from theano.scalar import UnaryScalarOp, same_out_nocomplex

import binary_connect
import fused
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
    "Round3",
    "StochasticSignLayer",
    "binarization",
    "binary_sigmoid_unit",
    "binary_tanh_unit",
    "clipping_scaling",
    "compute_grads",
    "hard_sigmoid",
    "normalize_and_binarize",
    "round3",
    "round3_scalar",
    "scale_pixels",
    "train",
]

ZERO, ONE = lasagne.init.Constant(0), lasagne.init.Constant(1)


class Round3(UnaryScalarOp):
    """See `round3`."""

    def impl(self, x):
        fraction, integer = math.modf(x)
        return integer + (fraction >= 0.5) - (fraction <= -0.5)

    def c_code(self, node, name, inputs, outputs, sub):
        return f"{outputs[0]} = round({inputs[0]});"

    def c_headers(self):
        return ["<math.h>"]

    def grad(self, inputs, output_grads):
        return list(output_grads)

    def c_code_cache_version(self):
        return (1,)


round3_scalar = Round3(same_out_nocomplex, name="round3")
_round3 = T.Elemwise(round3_scalar, name="round3")


def round3(x):
    """The nearest integer, elementwise; halves are rounded away from zero.

    The gradient is taken to be 1.

    Examples
    --------
    >>> x = T.constant(np.float32([-1.5, -0.5, 0.25, 0.5, 2.5]))
    >>> y = round3(x)
    >>> y.eval().tolist(), theano.grad(y.sum(), x).eval().tolist()
    ([-2.0, -1.0, 0.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    return _round3(x)


def _straight_through(x, binary):
    """The value of `binary` with the gradient of clip(x, -1, 1)."""
    clipped = T.clip(x, -1, 1)
    constant = theano.gradient.disconnected_grad
    return constant(binary) + (clipped - constant(clipped))


def binary_tanh_unit(x):
    """The sign of x, -1 or +1, elementwise (section 1.3, equation 4).

    Zero becomes +1 (DEVIATIONS.md, 1). The gradient is 1 where |x| <= 1 and 0 elsewhere.

    Examples
    --------
    >>> x = T.constant(np.float32([-2.0, -0.5, 0.0, 1.0]))
    >>> y = binary_tanh_unit(x)
    >>> y.eval().tolist(), theano.grad(y.sum(), x).eval().tolist()
    ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    return _straight_through(x, binarization(x, np.float32(1)))


def binary_sigmoid_unit(x):
    """1 where `binary_tanh_unit(x)` is +1 and 0 where it is -1, with half the gradient.

    Examples
    --------
    >>> binary_sigmoid_unit(T.constant(np.float32([-0.5, 0.0, 2.0]))).eval().tolist()
    [0.0, 1.0, 1.0]
    """
    return (binary_tanh_unit(x) + np.float32(1)) / np.float32(2)


class StochasticSignLayer(lasagne.layers.Layer):
    """Stochastic binary activations (section 1.1, equation 2).

    At training time an output is +1 with probability hard_sigmoid(x) and -1 otherwise, sampled
    again at each evaluation; the gradient is the same as for `binary_tanh_unit`. At test time the
    layer applies `binary_tanh_unit`.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.
    """

    def __init__(self, incoming, **kwargs):
        super().__init__(incoming, **kwargs)
        self._srng = binary_connect.random_stream()

    def get_output_for(self, input, deterministic=False, **kwargs):
        if deterministic:
            return binary_tanh_unit(input)
        sampled = binarization(input, 1.0, stochastic=True, srng=self._srng)
        return _straight_through(input, sampled)


def scale_pixels(x):
    """x / 255, the nonlinearity of a first layer whose inputs are the integers 2 pixel - 255.

    float32 holds the sums over these integers exactly. The sums divided by 255 are the sums over
    pixels that are scaled to [-1, 1] (DEVIATIONS.md, 15).
    """
    return x / np.float32(255)


class BatchNormLayer(lasagne.layers.Layer):
    """Batch normalization of Lasagne 0.2: (x - mean) * gamma / sqrt(var + epsilon) + beta.

    Lasagne 0.1 has neither this layer nor `batch_norm`, but scripts of 2016 expect both in
    ``lasagne.layers``; importing `binary_net` puts them there.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    axes : "auto", int or tuple of int
        The axes to normalize over; "auto" means all but the second.
    epsilon : float
        Added to the variance.
    alpha : float
        Weight of the new batch in the running statistics, in (0, 1].
    beta, gamma : initializer, array, shared variable or None
        Shift and scale; None omits it.
    mean, inv_std : initializer, array or shared variable
        Running mean and running inverse standard deviation, 1 / sqrt(var + epsilon).
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.

    Attributes
    ----------
    beta, gamma, mean, inv_std : shared variables
        Their shape is the input's without `axes`. beta and gamma are trained.

    Raises
    ------
    ValueError
        If an axis that is not normalized over has an unknown size.
    """

    def __init__(
        self,
        incoming,
        axes="auto",
        epsilon=1e-4,
        alpha=0.1,
        beta=ZERO,
        gamma=ONE,
        mean=ZERO,
        inv_std=ONE,
        **kwargs,
    ):
        super().__init__(incoming, **kwargs)
        self.axes = fused.normalized_axes(None if axes == "auto" else axes, self.input_shape)
        self.epsilon = np.float32(epsilon)
        self.alpha = alpha
        shape = [size for i, size in enumerate(self.input_shape) if i not in self.axes]
        fixed = {"trainable": False, "regularizable": False}
        self.beta = self.gamma = None
        if beta is not None:
            self.beta = self.add_param(beta, shape, "beta", regularizable=False)
        if gamma is not None:
            self.gamma = self.add_param(gamma, shape, "gamma")
        self.mean = self.add_param(mean, shape, "mean", **fixed)
        self.inv_std = self.add_param(inv_std, shape, "inv_std", **fixed)

    def get_output_for(
        self,
        input,
        deterministic=False,
        batch_norm_use_averages=None,
        batch_norm_update_averages=None,
        **kwargs,
    ):
        """The normalized input.

        Parameters
        ----------
        input : Theano expression
            Has the layer's input shape.
        deterministic : bool
            True at test time.
        batch_norm_use_averages : bool or None
            Whether to normalize by the running statistics; None means `deterministic`.
        batch_norm_update_averages : bool or None
            Whether to update the running statistics; None means not `deterministic`.
        """
        use, update = batch_norm_use_averages, batch_norm_update_averages
        use = deterministic if use is None else use
        update = not deterministic if update is None else update
        identity = lasagne.nonlinearities.identity
        if (
            update
            and not use
            and self.gamma is not None
            and self.beta is not None
            and fused.normalization.applicable(input, self.gamma, self.beta, self.axes, identity)
        ):
            y, mean, std = fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, True, identity
            )
            return y + 0 * self._moved(mean.flatten(), T.sqr(std.flatten()), input)
        mean, inv_std = self.mean, self.inv_std
        if update or not use:
            batch = input.mean(self.axes), input.var(self.axes)
            if not use:
                mean, inv_std = batch[0], T.inv(T.sqrt(batch[1] + self.epsilon))
        scale = inv_std if self.gamma is None else self.gamma * inv_std
        y = (input - self._broadcast(mean, input)) * self._broadcast(scale, input)
        if self.beta is not None:
            y += self._broadcast(self.beta, input)
        return y + 0 * self._moved(*batch, input) if update else y

    def _moved(self, mean, var, input):
        """An expression that moves the running statistics towards the statistics of a batch."""
        inv_std = T.inv(T.sqrt(var + self.epsilon))
        batch = ((self.mean, mean), (self.inv_std, inv_std))
        return sum(self._broadcast(fused.tracked(*pair, self.alpha), input) for pair in batch)

    def _broadcast(self, x, input):
        """Parameters or statistics `x`, broadcastable over the axes that are normalized over."""
        sizes = iter(range(input.ndim - len(self.axes)))
        return x.dimshuffle(["x" if i in self.axes else next(sizes) for i in range(input.ndim)])


def batch_norm(layer, **kwargs):
    """Batch normalization of Lasagne 0.2 between a layer and its nonlinearity.

    The nonlinearity of `layer` moves to a layer of its own. The bias of `layer` is removed, because
    beta makes it redundant.

    Parameters
    ----------
    layer : Layer
        Is changed.
    **kwargs
        Passed on to :class:`BatchNormLayer`.

    Returns
    -------
    BatchNormLayer or, if `layer` has a nonlinearity, NonlinearityLayer
    """
    nonlinearity = fused.take_over(layer)
    layer = BatchNormLayer(layer, **kwargs)
    if nonlinearity is None:
        return layer
    return lasagne.layers.NonlinearityLayer(layer, nonlinearity)


def _missing(name):
    raise AttributeError(
        f"Lasagne 0.1 has no lasagne.layers.{name}; scripts of 2016 ran on a development version"
    )


# Scripts of 2016 expect these names of Lasagne 0.2.
for _module in (lasagne.layers, lasagne.layers.normalization):
    _module.BatchNormLayer, _module.batch_norm = BatchNormLayer, batch_norm
lasagne.layers.normalization.__all__ += ["BatchNormLayer", "batch_norm"]
lasagne.layers.__getattr__ = _missing


def normalize_and_binarize(network, hidden, shift_based=False):
    """`network` with batch normalization and, if `hidden`, binary activations.

    Parameters
    ----------
    network : Layer
    hidden : bool
        False for the output layer, which is normalized but not binarized.
    shift_based : bool
        Whether to use shift-based batch normalization and stochastic activations, as in the Torch7
        experiments; otherwise the layers of the Theano experiments.

    Returns
    -------
    Layer
    """
    if shift_based:
        network = ShiftBatchNormLayer(network, epsilon=1e-4, alpha=0.1)
        return StochasticSignLayer(network) if hidden else network
    network = BatchNormLayer(network, epsilon=1e-4, alpha=0.1)
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
    """Train as the released scripts of 2016 do. Same as `binary_connect.train`, plus:

    Parameters
    ----------
    model : Layer
        The output layer.
    save_path : path, optional
        An .npz file that receives the parameters of the best epoch. Weights are real-valued, and
        the order is that of ``lasagne.layers.get_all_param_values``.
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
