"""Batch normalization of 2015: the released layer, and the layer of the published MNIST code.

Names, parameters and the order of the parameters are the same as in the released module. The
released layer adds epsilon to the standard deviation, not to the variance. The published layer has
no running statistics.
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

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    axes : None, int or tuple of int
        The axes to normalize over; None means all but the second.
    epsilon : float
        Added to the standard deviation.
    alpha : float
        Weight of the new batch in the running statistics, in (0, 1]: running <- (1 - alpha)
        running + alpha batch. If an output is normalized by the statistics of the batch, every
        function compiled from it updates the running statistics.
    nonlinearity : callable or None
        Applied to the normalized activations; None is the identity.
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.

    Attributes
    ----------
    mean, std, beta, gamma : shared variables
        They have the input's shape, with size 1 along `axes`. beta and gamma are trained; only beta
        is regularizable.

    Raises
    ------
    ValueError
        If an axis that is not normalized over has an unknown size.

    Examples
    --------
    >>> layer = BatchNormLayer((None, 1), epsilon=0)
    >>> layer.get_output_for(T.constant(np.float32([[1.0], [3.0]]))).eval().tolist()
    [[-1.0], [1.0]]
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
        self.gamma = self.add_param(ONES, shape, "gamma", regularizable=False)

    def get_output_for(
        self,
        input,
        deterministic=False,
        batch_norm_use_averages=None,
        batch_norm_alpha=None,
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
            Whether to normalize by the running statistics. If false, the layer normalizes by the
            statistics of the batch and updates the running statistics. None means `deterministic`.
        batch_norm_alpha : Theano scalar or None
            If given, replaces `alpha`.
        """
        alpha = self.alpha if batch_norm_alpha is None else batch_norm_alpha
        if deterministic if batch_norm_use_averages is None else batch_norm_use_averages:
            mean, std = self.mean, self.std
        elif fused.normalization.applicable(
            input, self.gamma, self.beta, self.axes, self.nonlinearity
        ):
            y, mean, std = fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, False, self.nonlinearity
            )
            moved = fused.tracked(self.mean, mean, alpha) + fused.tracked(self.std, std, alpha)
            return y + 0 * T.addbroadcast(moved, *self.axes)
        else:
            mean = fused.tracked(self.mean, input.mean(self.axes, keepdims=True), alpha)
            std = fused.tracked(self.std, input.std(self.axes, keepdims=True), alpha)
        mean, std, beta, gamma = (
            T.addbroadcast(x, *self.axes) for x in (mean, std, self.beta, self.gamma)
        )
        return self.nonlinearity((input - mean) * (gamma / (std + self.epsilon)) + beta)


def batch_norm(layer):
    """Batch normalization between a layer and its nonlinearity (released code).

    The nonlinearity moves to the new layer. The bias of `layer` is removed, because beta makes it
    redundant.

    Parameters
    ----------
    layer : Layer
        Is changed.

    Returns
    -------
    BatchNormLayer
    """
    return BatchNormLayer(layer, nonlinearity=fused.take_over(layer))


class CumulativeBatchNormLayer(lasagne.layers.Layer):
    """Batch normalization of the published MNIST code.

    The output is nonlinearity(gamma (x - mean) / sqrt(var + epsilon) + beta). There are no running
    statistics; `cumulative_statistics` recomputes the statistics for test time before each
    evaluation.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, with output shape (batch, units), or that shape.
    epsilon : float
        Added to the variance.
    nonlinearity : callable or None
        Applied to the normalized activations; None is the identity.

    Attributes
    ----------
    mean, var, beta, gamma : shared variables of shape (units,)
        beta and gamma are trained; in the published code they are called b and a.
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
        """The normalized input.

        Parameters
        ----------
        input : Theano expression of shape (batch, units)
        deterministic : bool
            True at test time.
        batch_norm_use_averages : bool or None
            Whether to normalize by the stored statistics; otherwise the layer normalizes by the
            statistics of the batch. None means `deterministic`.
        """
        if batch_norm_use_averages is None:
            batch_norm_use_averages = deterministic
        if batch_norm_use_averages:
            mean, var = self.mean, self.var
        elif fused.normalization.applicable(input, self.gamma, self.beta, (0,), self.nonlinearity):
            return fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, True, self.nonlinearity
            )[0]
        else:
            mean, var = input.mean(0), input.var(0)
        scale = self.gamma / T.sqrt(var + self.epsilon)
        return self.nonlinearity((input - mean) * scale + self.beta)


def cumulative_statistics(network, count, **kwargs):
    """Updates that add one batch to the means of the batch means and variances of each layer.

    Parameters
    ----------
    network : Layer
        The output layer of a network with :class:`CumulativeBatchNormLayer`.
    count : Theano scalar
        The number of batches so far, including this one.
    **kwargs
        Passed on to ``lasagne.layers.get_output``, which computes the inputs of the layers.

    Returns
    -------
    OrderedDict
        {shared variable: new value} for `mean` and `var` of each such layer.

    Examples
    --------
    >>> layer = CumulativeBatchNormLayer(lasagne.layers.InputLayer((None, 1)))
    >>> batch = T.constant(np.float32([[1.0], [3.0]]))
    >>> updates = cumulative_statistics(layer, count=1, inputs=batch)
    >>> [updates[statistic].eval().tolist() for statistic in (layer.mean, layer.var)]
    [[2.0], [1.0]]
    """
    layers = lasagne.layers.get_all_layers(network)
    normalizations = [layer for layer in layers if isinstance(layer, CumulativeBatchNormLayer)]
    below = [layer.input_layer for layer in normalizations]
    updates = OrderedDict()
    for layer, x in zip(normalizations, lasagne.layers.get_output(below, **kwargs), strict=True):
        fast = fused.normalization.applicable(
            x, layer.gamma, layer.beta, (0,), lasagne.nonlinearities.identity
        )
        mean, var = fused.moments(x) if fast else (x.mean(0), x.var(0))
        updates[layer.mean] = layer.mean + (mean - layer.mean) / count
        updates[layer.var] = layer.var + (var - layer.var) / count
    return updates
