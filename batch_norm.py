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
        self.axes = _checked_axes(axes, self.input_shape)
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
            moved = tracked(self.mean, mean, alpha) + tracked(self.std, std, alpha)
            return y + 0 * moved
        else:
            mean = tracked(self.mean, input.mean(self.axes, keepdims=True), alpha)
            std = tracked(self.std, input.std(self.axes, keepdims=True), alpha)
        mean, std, beta, gamma = (
            T.addbroadcast(x, *self.axes) for x in (mean, std, self.beta, self.gamma)
        )
        return self.nonlinearity((input - mean) * (gamma / (std + self.epsilon)) + beta)


def _checked_axes(axes, input_shape):
    """The axes to normalize over, a tuple (None: all but the second); ValueError where another's
    size is not known."""
    if axes is None:
        axes = [axis for axis in range(len(input_shape)) if axis != 1]
    axes = lasagne.utils.as_tuple(axes, 1) if np.isscalar(axes) else tuple(axes)
    if any(size is None for i, size in enumerate(input_shape) if i not in axes):
        raise ValueError(
            f"BatchNormLayer needs the size of every axis that it does not normalize over; "
            f"given input_shape={input_shape}, axes={axes}"
        )
    return axes


def tracked(running, batch, alpha):
    """`batch`, in a graph that also moves the running statistic towards it: running <- (1 - alpha)
    running + alpha batch, in every function compiled from that graph."""
    # A default update belongs to a variable, not to its storage: a clone that shares the storage
    # carries it, so that only graphs with this clone in them update the statistic.
    clone = running.clone()
    clone.default_update = (1 - alpha) * clone + alpha * batch
    return batch + 0 * clone


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
    nonlinearity = getattr(layer, "nonlinearity", None)
    if nonlinearity is not None:
        layer.nonlinearity = lasagne.nonlinearities.identity
    if getattr(layer, "b", None) is not None:
        del layer.params[layer.b]
        layer.b = None
    return BatchNormLayer(layer, nonlinearity=nonlinearity)


class LasagneBatchNormLayer(lasagne.layers.Layer):
    """Batch normalization of Lasagne 0.2, which scripts of 2016 call
    ``lasagne.layers.BatchNormLayer``: (x - mean) * gamma / sqrt(var + epsilon) + beta.

    Lasagne 0.1 lacks it; `original_stack` puts it there.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    axes : "auto", int or tuple of int
        The axes to normalize over; "auto": all but the second.
    epsilon : float
        Added to the variance.
    alpha : float
        Weight of the new batch in the running statistics, in (0, 1].
    beta, gamma : initializer, array, shared variable or None
        Shift and scale; None: none.
    mean, inv_std : initializer, array or shared variable
        Running mean and inverse standard deviation, 1 / sqrt(var + epsilon).
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.

    Attributes
    ----------
    beta, gamma, mean, inv_std : shared variables
        Of the input's shape without `axes`; the first two are trained.
    """

    def __init__(
        self,
        incoming,
        axes="auto",
        epsilon=1e-4,
        alpha=0.1,
        beta=ZEROS,
        gamma=ONES,
        mean=ZEROS,
        inv_std=ONES,
        **kwargs,
    ):
        super().__init__(incoming, **kwargs)
        self.axes = _checked_axes(None if axes == "auto" else axes, self.input_shape)
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
        """Normalized input.

        Parameters
        ----------
        batch_norm_use_averages : bool or None
            Whether to normalize by the running statistics; None: if `deterministic`.
        batch_norm_update_averages : bool or None
            Whether to update them by the batch's; None: unless `deterministic`.
        """
        use, update = batch_norm_use_averages, batch_norm_update_averages
        use = deterministic if use is None else use
        update = not deterministic if update is None else update
        if update and not use and self._fusible(input):
            y, mean, std = fused.batch_norm(
                input, self.gamma, self.beta, self.epsilon, True, lasagne.nonlinearities.identity
            )
            return y + 0 * self._moved(mean.flatten(), T.sqr(std.flatten()), input)
        mean, inv_std, moved = self.mean, self.inv_std, 0
        if update or not use:
            batch = input.mean(self.axes), input.var(self.axes)
            if update:
                moved = self._moved(*batch, input)
            if not use:
                mean, inv_std = batch[0], T.inv(T.sqrt(batch[1] + self.epsilon))
        scale = inv_std if self.gamma is None else self.gamma * inv_std
        y = (input - self._broadcast(mean, input)) * self._broadcast(scale, input)
        if self.beta is not None:
            y += self._broadcast(self.beta, input)
        return y + 0 * moved if update else y

    def _fusible(self, input):
        return (
            self.gamma is not None
            and self.beta is not None
            and fused.supports(input, self.axes, lasagne.nonlinearities.identity)
        )

    def _moved(self, mean, var, input):
        """An expression that moves the running statistics towards a batch's."""
        inv_std = T.inv(T.sqrt(var + self.epsilon))
        batch = ((self.mean, mean), (self.inv_std, inv_std))
        return sum(self._broadcast(tracked(*pair, self.alpha), input) for pair in batch)

    def _broadcast(self, x, input):
        """`x`, of the shape of the parameters, in that of the input."""
        sizes = iter(range(input.ndim - len(self.axes)))
        return x.dimshuffle(["x" if i in self.axes else next(sizes) for i in range(input.ndim)])


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
