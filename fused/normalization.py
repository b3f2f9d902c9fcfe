"""Batch normalization and a rectifier in one pass, forward and backward; shift-based batch
normalization.

Reference: the plain expressions in `batch_norm` and `shift_based`, and their gradients by Theano.
"""

import numpy as np
import theano
import theano.tensor as T
from lasagne.nonlinearities import identity, rectify
from theano.gof import ParamsType
from theano.scalar import bool as bool_t
from theano.scalar import float64
from theano.tensor.signal.pool import Pool

from .op import Op, check, enabled


class _Normalization(Op):
    """Maps float32 x (batch, channels, ...), gamma and beta (channels,) to y, of the shape of x,
    and two statistics of x (channels,)."""

    def make_node(self, x, gamma, beta):
        if x.ndim < 2:
            raise TypeError(
                f"batch normalization takes (batch, channels, ...); given {x.ndim} axes"
            )
        check("batch normalization", [x, gamma, beta], "float32", "float32 1", "float32 1")
        return theano.Apply(self, [x, gamma, beta], [x.type(), gamma.type(), gamma.type()])

    def infer_shape(self, node, shapes):
        x, gamma, beta = shapes
        return [x, gamma, gamma]

    def connection_pattern(self, node):
        return [[True, False, False]] * 3


class _NormalizationGrad(Op):
    """Maps the gradient with respect to y, x, gamma and others to the gradients with respect to x,
    gamma and beta."""

    def make_node(self, dy, x, gamma, *others):
        dy = T.patternbroadcast(T.cast(dy, "float32"), x.broadcastable)
        outputs = [x.type(), gamma.type(), gamma.type()]
        return theano.Apply(self, [dy, x, gamma, *others], outputs)

    def infer_shape(self, node, shapes):
        return [shapes[1], shapes[2], shapes[2]]


class _Options:
    """How `BatchNorm` normalizes. Values at run time, not constants in the code, so that all such
    ops share compiled code."""

    __props__ = ("epsilon", "on_variance", "rectify")
    source = "normalization.cpp"
    params_type = ParamsType(epsilon=float64, on_variance=bool_t, rectify=bool_t)

    def __init__(self, epsilon, on_variance, rectify):
        self.epsilon = epsilon
        self.on_variance = on_variance
        self.rectify = rectify


class BatchNorm(_Options, _Normalization):
    """Normalizes by the mean and standard deviation of x, which are the statistics.

    y is gamma (x - mean) / s + beta, rectified if `rectify`; s is sqrt(std^2 + epsilon) if
    `on_variance`, otherwise std + epsilon.
    """

    function = "normalization::forward"

    def grad(self, inputs, output_grads):
        x, gamma, beta = inputs
        _, mean, std = self(x, gamma, beta)
        return BatchNormGrad(self.epsilon, self.on_variance, self.rectify)(
            output_grads[0], x, gamma, beta, mean, std
        )


class BatchNormGrad(_Options, _NormalizationGrad):
    """The gradients of `BatchNorm`. Its inputs after dy, x and gamma are beta, mean and std."""

    function = "normalization::backward"


class ShiftBatchNorm(_Normalization):
    """Shift-based batch normalization: the statistics are the mean and the inverse standard
    deviation. Reference: :class:`shift_based.ShiftBatchNormLayer`."""

    __props__ = ("epsilon",)
    source = "shift_normalization.cpp"
    function = "normalization::shift_forward"
    params_type = ParamsType(epsilon=float64)

    def __init__(self, epsilon):
        self.epsilon = epsilon

    def grad(self, inputs, output_grads):
        x, gamma, beta = inputs
        _, mean, inv_std = self(x, gamma, beta)
        return ShiftBatchNormGrad()(output_grads[0], x, gamma, mean, inv_std)


class ShiftBatchNormGrad(_NormalizationGrad):
    """The gradients of `ShiftBatchNorm`. Its inputs after dy, x and gamma are mean and inv_std."""

    source = "shift_normalization.cpp"
    function = "normalization::shift_backward"


def applicable(x, gamma, beta, axes, nonlinearity):
    """Whether `batch_norm` can normalize `x` over `axes` and apply the nonlinearity."""
    others = (0, *range(2, x.ndim))
    return (
        enabled()
        and x.dtype == gamma.dtype == beta.dtype == "float32"
        and x.ndim > 1
        and tuple(axes) == others
        and nonlinearity in (identity, rectify)
    )


def batch_norm(x, gamma, beta, epsilon, on_variance, nonlinearity):
    """Normalize x of shape (batch, channels, ...) by its mean and standard deviation.

    Parameters
    ----------
    x : float32 Theano expression
    gamma, beta : float32 Theano expressions with one number per channel
    epsilon : float
        Added to the variance if `on_variance`, otherwise to the standard deviation.
    nonlinearity : lasagne.nonlinearities.identity or rectify

    Returns
    -------
    (y, mean, std)
        y = nonlinearity(gamma (x - mean) / s + beta) has the shape of x. In mean and std, all axes
        but that of the channels have size 1.
    """
    a, bias = _without_bias(x)
    # A bias shifts x and its mean equally. It stays in the graph, so that its gradient is zero.
    y, mean, std = BatchNorm(float(epsilon), on_variance, nonlinearity is rectify)(
        a, _of_channels(gamma), _of_channels(beta) + 0 * bias
    )
    along_channels = ["x", 0, *["x"] * (x.ndim - 2)]
    return y, (mean + bias).dimshuffle(along_channels), std.dimshuffle(along_channels)


def shift_batch_norm(x, gamma, beta, epsilon):
    """Shift-based batch normalization of x (batch, channels, ...): y, and mean and inv_std
    (channels,) as in :class:`shift_based.ShiftBatchNormLayer`."""
    return ShiftBatchNorm(float(epsilon))(x, gamma, beta)


def moments(x):
    """The mean and the variance of each column of `x`, a float32 matrix."""
    zeros = T.zeros(x.shape[1:], "float32")
    _, mean, std = BatchNorm(1.0, True, False)(x, zeros, zeros)
    return mean, T.sqr(std)


def _without_bias(x):
    """(a, b) such that `x` is a plus the vector b along the second axis.

    Max pooling commutes with adding a constant, so b may also be added before a max pooling.
    """
    node = x.owner
    if node is not None and isinstance(node.op, Pool) and node.op.mode == "max":
        a, b = _without_bias(node.inputs[0])
        return node.op(a, *node.inputs[1:]), b
    if node is not None and node.op == T.add and len(node.inputs) == 2:
        a, b = node.inputs
        others = [axis for axis in range(x.ndim) if axis != 1]
        if a.type == x.type and all(b.broadcastable[axis] for axis in others):
            return a, _of_channels(b)
    return x, T.constant(np.float32(0))


def _of_channels(x):
    """`x`, whose axes but that of the channels have size 1, as a vector."""
    if x.ndim == 1:
        return x
    return T.addbroadcast(x, 0, *range(2, x.ndim)).dimshuffle(1)


def normalized_axes(axes, input_shape):
    """The axes that a batch normalization layer normalizes over.

    Parameters
    ----------
    axes : None, int or iterable of int
        None means all but the second. Negative numbers count from the last axis.
    input_shape : tuple of int or None

    Returns
    -------
    tuple of int
        Numbers from 0.

    Raises
    ------
    ValueError
        If another axis has an unknown size, or if there is no such axis.
    """
    if axes is None:
        axes = [axis for axis in range(len(input_shape)) if axis != 1]
    axes = np.core.numeric.normalize_axis_tuple(axes, len(input_shape))
    if any(size is None for i, size in enumerate(input_shape) if i not in axes):
        raise ValueError(
            f"BatchNormLayer needs the size of every axis that it does not normalize over; "
            f"given input_shape={input_shape}, axes={axes}"
        )
    return axes


def tracked(running, batch, alpha):
    """The value of `batch`, in a graph that also moves the running statistic towards it.

    Every function compiled from that graph updates
    running <- (1 - alpha) running + alpha batch.

    Parameters
    ----------
    running : shared variable
    batch : Theano expression
        The statistic of the batch; has the shape of `running`.
    alpha : float or Theano scalar

    Returns
    -------
    Theano expression
    """
    # A default update belongs to a variable, not to its storage. The update is given to a clone
    # that shares the storage, so that only graphs with this clone update the statistic.
    clone = running.clone()
    clone.default_update = (1 - alpha) * clone + alpha * batch
    return batch + 0 * clone


def take_over(layer):
    """Take the nonlinearity from a layer before batch normalization, and return it, or None.

    The nonlinearity of the layer becomes the identity. Its bias, which beta makes redundant, is
    removed.
    """
    nonlinearity = getattr(layer, "nonlinearity", None)
    if nonlinearity is not None:
        layer.nonlinearity = identity
    if getattr(layer, "b", None) is not None:
        del layer.params[layer.b]
        layer.b = None
    return nonlinearity
