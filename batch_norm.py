"""Batch normalization of 2015: the released layer, and that of the published MNIST experiments.

Names and parameters of the released module stay. Both differ from today's layers in where epsilon
stands or in how the statistics of test time come about.
"""

from collections import OrderedDict

import original_stack

import lasagne
import numpy as np
import theano.tensor as T

import fused

ZEROS, ONES = lasagne.init.Constant(0), lasagne.init.Constant(1)


class BatchNormLayer(lasagne.layers.Layer):
    """Batch normalization of the released code: (x - mean) * gamma / (std + epsilon) + beta.

    Epsilon is added to the standard deviation, not to the variance.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    axes : None, int or tuple of int
        The axes to normalize over; None: all but the second.
    epsilon : float
        Added to the standard deviation.
    alpha : float
        Weight of the new batch in the running statistics, in (0, 1]: new = (1 - alpha) old +
        alpha batch. They are updated by every function compiled from an output that is normalized
        by the batch.
    nonlinearity : callable or None
        Applied to the normalized activations; None: none.
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.

    Attributes
    ----------
    mean, std, beta, gamma : shared variables
        Of the input's shape with 1 in the place of `axes`; the last two are trained.
    """

    def __init__(self, incoming, axes=None, epsilon=0.01, alpha=0.5, nonlinearity=None, **kwargs):
        super().__init__(incoming, **kwargs)
        self.axes = fused.normalized_axes(axes, self.input_shape)
        self.epsilon = epsilon
        self.alpha = alpha
        self.nonlinearity = nonlinearity or lasagne.nonlinearities.identity
        shape = [1 if i in self.axes else size for i, size in enumerate(self.input_shape)]
        fixed = {"trainable": False, "regularizable": False}
        self.mean = self.add_param(ZEROS, shape, "mean", **fixed)
        self.std = self.add_param(ONES, shape, "std", **fixed)
        self.beta = self.add_param(ZEROS, shape, "beta")
        self.gamma = self.add_param(ONES, shape, "gamma")

    def get_output_for(
        self,
        input,
        deterministic=False,
        batch_norm_use_averages=None,
        batch_norm_alpha=None,
        **kwargs,
    ):
        """Normalized input.

        Parameters
        ----------
        batch_norm_use_averages : bool or None
            Whether to normalize by the running statistics; None: if `deterministic`. If not, by
            the batch's, which also move the running ones.
        batch_norm_alpha : Theano scalar or None
            In the place of `alpha`.
        """
        alpha = self.alpha if batch_norm_alpha is None else batch_norm_alpha
        if deterministic if batch_norm_use_averages is None else batch_norm_use_averages:
            mean, std = self.mean, self.std
        elif fused.supports(input, self.axes, self.nonlinearity):
            y, mean, std = fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, False, self.nonlinearity
            )
            moved = fused.tracked(self.mean, mean, alpha) + fused.tracked(self.std, std, alpha)
            return y + 0 * moved
        else:
            mean = fused.tracked(self.mean, input.mean(self.axes, keepdims=True), alpha)
            std = fused.tracked(self.std, input.std(self.axes, keepdims=True), alpha)
        mean, std, beta, gamma = (
            T.addbroadcast(x, *self.axes) for x in (mean, std, self.beta, self.gamma)
        )
        return self.nonlinearity((input - mean) * (gamma / (std + self.epsilon)) + beta)


def batch_norm(layer):
    """`layer` with batch normalization between it and its nonlinearity.

    Takes the layer's nonlinearity over and removes its bias, which beta makes redundant
    (released code).

    Parameters
    ----------
    layer : Layer

    Returns
    -------
    BatchNormLayer
    """
    return BatchNormLayer(layer, nonlinearity=fused.take_over(layer))


class CumulativeBatchNormLayer(lasagne.layers.Layer):
    """Batch normalization of the published MNIST code.

    The output is nonlinearity(gamma (x - mean) / sqrt(var + epsilon) + beta). There are no running
    statistics: `cumulative_statistics` makes those of test time anew before each evaluation.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, of output shape (batch, units), or that shape.
    epsilon : float
        Added to the variance.
    nonlinearity : callable or None
        Applied to the normalized activations; None: none.

    Attributes
    ----------
    mean, var, beta, gamma : shared variables of shape (units,)
        The last two are trained; the published code calls them b and a.
    """

    def __init__(self, incoming, epsilon=1e-4, nonlinearity=None, **kwargs):
        super().__init__(incoming, **kwargs)
        self.nonlinearity = nonlinearity or lasagne.nonlinearities.identity
        self.epsilon = np.float32(epsilon)
        shape = self.input_shape[1:]
        fixed = {"trainable": False, "regularizable": False}
        self.mean = self.add_param(ZEROS, shape, "mean", **fixed)
        self.var = self.add_param(ZEROS, shape, "var", **fixed)
        self.beta = self.add_param(ZEROS, shape, "beta")
        self.gamma = self.add_param(ONES, shape, "gamma")

    def get_output_for(self, input, deterministic=False, batch_norm_use_averages=None, **kwargs):
        """Normalized input, by the stored statistics if `batch_norm_use_averages` (None: if
        `deterministic`), else by the batch's own."""
        if batch_norm_use_averages is None:
            batch_norm_use_averages = deterministic
        if batch_norm_use_averages:
            mean, var = self.mean, self.var
        elif fused.supports(input, (0,), self.nonlinearity):
            return fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, True, self.nonlinearity
            )[0]
        else:
            mean, var = input.mean(0), input.var(0)
        scale = self.gamma / T.sqrt(var + self.epsilon)
        return self.nonlinearity((input - mean) * scale + self.beta)


def cumulative_statistics(network, count, **kwargs):
    """Updates that take one more batch into the mean of batch means and variances of each layer.

    Parameters
    ----------
    network : Layer
        The output layer of a network with :class:`CumulativeBatchNormLayer`.
    count : Theano scalar
        How many batches have been taken in, this one included.
    **kwargs
        Passed on to ``lasagne.layers.get_output``: what the batch passes through on its way.

    Returns
    -------
    OrderedDict
        {shared variable: new value} for `mean` and `var` of each such layer.
    """
    layers = lasagne.layers.get_all_layers(network)
    normalizations = [layer for layer in layers if isinstance(layer, CumulativeBatchNormLayer)]
    below = [layer.input_layer for layer in normalizations]
    updates = OrderedDict()
    for layer, x in zip(normalizations, lasagne.layers.get_output(below, **kwargs), strict=True):
        fast = fused.supports(x, (0,), lasagne.nonlinearities.identity)
        mean, var = fused.moments(x) if fast else (x.mean(0), x.var(0))
        updates[layer.mean] = layer.mean + (mean - layer.mean) / count
        updates[layer.var] = layer.var + (var - layer.var) / count
    return updates
