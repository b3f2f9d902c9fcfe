"""Arithmetic by shifts: batch normalization and an optimizer that multiply by powers of two.

The Torch7 experiments of Binarized Neural Networks use them (Courbariaux et al., 2016,
arXiv:1602.02830, Algorithms 3 and 4).
"""

from collections import OrderedDict

import original_stack

import lasagne
import numpy as np
import theano
import theano.tensor as T
from theano.scalar import UnaryScalarOp, same_out

import fused


class _AP2(UnaryScalarOp):
    """See `ap2`."""

    # See kernels/ap2.h.
    def impl(self, x):
        bits = np.float32(x).view(np.uint32) + np.uint32(0x4AFB0C)
        return (bits & np.uint32(0xFF800000)).view(np.float32)

    def c_support_code(self):
        return (fused.KERNELS / "ap2.h").read_text()

    def c_code(self, node, name, inputs, outputs, sub):
        return f"{outputs[0]} = ap2({inputs[0]});"

    def c_headers(self):
        return ["<string.h>"]

    def grad(self, inputs, output_grads):
        return list(output_grads)

    def c_code_cache_version(self):
        return (2,)


_ap2 = T.Elemwise(_AP2(same_out, name="ap2"), name="ap2")


def ap2(x):
    """The power of two nearest to x: sign(x) 2^round(log2 |x|), elementwise (section 1.4).

    The value at 0 is 0. The gradient is taken to be 1 (DEVIATIONS.md, 17).

    Parameters
    ----------
    x : float32 Theano expression
        Finite, and either zero or at least 2^-126 in magnitude.

    Examples
    --------
    >>> ap2(T.constant(np.float32([0.7, 0.71, -3.0, 0.0]))).eval().tolist()
    [0.5, 1.0, -4.0, 0.0]
    """
    return _ap2(x)


class ShiftBatchNormLayer(lasagne.layers.Layer):
    """Shift-based batch normalization (Algorithm 3): multipliers are powers of two.

    With c = x - mean(x), the variance is mean(c ap2(c)), and the output is ap2(gamma) c
    ap2(1 / sqrt(variance + epsilon)) + beta. All axes but the second are normalized over.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, with output shape (batch, channels, ...), or that shape.
    epsilon : float
        Added to the variance.
    alpha : float
        Weight of the new batch in the running statistics, in (0, 1]: running <- (1 - alpha)
        running + alpha batch.
    **kwargs
        Passed on to :class:`lasagne.layers.Layer`.

    Attributes
    ----------
    beta, gamma, mean, inv_std : shared variables of shape (channels,)
        beta and gamma are trained.
    """

    def __init__(self, incoming, epsilon=1e-4, alpha=0.1, **kwargs):
        super().__init__(incoming, **kwargs)
        self.epsilon = np.float32(epsilon)
        self.alpha = alpha
        self.axes = [axis for axis in range(len(self.input_shape)) if axis != 1]
        shape = self.input_shape[1:2]
        constant = lasagne.init.Constant
        fixed = {"trainable": False, "regularizable": False}
        self.beta = self.add_param(constant(0), shape, "beta")
        self.gamma = self.add_param(constant(1), shape, "gamma")
        self.mean = self.add_param(constant(0), shape, "mean", **fixed)
        self.inv_std = self.add_param(constant(1), shape, "inv_std", **fixed)

    def get_output_for(self, input, deterministic=False, **kwargs):
        """The normalized input.

        If `deterministic`, the layer normalizes by the running statistics. Otherwise it normalizes
        by the statistics of the batch and updates the running statistics.
        """
        pattern = ["x", 0, *["x"] * (input.ndim - 2)]
        identity = lasagne.nonlinearities.identity
        if not deterministic and fused.normalization.applicable(
            input, self.gamma, self.beta, self.axes, identity
        ):
            y, *batch = fused.shift_batch_norm(input, self.gamma, self.beta, self.epsilon)
            running = (self.mean, self.inv_std)
            moved = (fused.tracked(*pair, self.alpha) for pair in zip(running, batch, strict=True))
            return y + 0 * sum(moved).dimshuffle(pattern)
        beta, gamma = self.beta.dimshuffle(pattern), self.gamma.dimshuffle(pattern)
        if deterministic:
            centered = input - self.mean.dimshuffle(pattern)
            inv_std = self.inv_std
        else:
            mean = fused.tracked(self.mean, input.mean(self.axes), self.alpha)
            centered = input - mean.dimshuffle(pattern)
            variance = (centered * ap2(centered)).mean(self.axes)
            inv_std = fused.tracked(
                self.inv_std, T.inv(T.sqrt(variance + self.epsilon)), self.alpha
            )
        return ap2(gamma) * (centered * ap2(inv_std).dimshuffle(pattern)) + beta


def shift_adamax(loss_or_grads, params, learning_rate=2**-10, beta1=1 - 2**-3, beta2=1 - 2**-10):
    """Shift-based AdaMax (Algorithm 4): Lasagne's adamax, but multipliers are powers of two.

    m <- beta1 m + (1 - beta1) g; v <- max(beta2 v, |g|); the update of a parameter is
    -ap2(learning_rate / (1 - beta1^t)) m ap2(1 / v).

    Parameters
    ----------
    loss_or_grads, params, learning_rate, beta1, beta2
        As in ``lasagne.updates.adamax``; the defaults are from the paper.

    Returns
    -------
    OrderedDict
        {shared variable: new value}
    """
    grads = lasagne.updates.get_or_compute_grads(loss_or_grads, params)
    t_previous = theano.shared(np.float32(0))
    t = t_previous + 1
    rate = ap2(T.cast(learning_rate / (1 - T.cast(beta1, "float32") ** t), "float32"))
    updates = OrderedDict()
    for param, grad in zip(params, grads, strict=True):
        m_previous, v_previous = (
            theano.shared(np.zeros_like(param.get_value()), broadcastable=param.broadcastable)
            for _ in range(2)
        )
        m = np.float32(beta1) * m_previous + np.float32(1 - beta1) * grad
        v = T.maximum(np.float32(beta2) * v_previous, abs(grad))
        updates[m_previous] = m
        updates[v_previous] = v
        # If v is 0, m is 0 too.
        updates[param] = param - rate * (m * ap2(T.inv(T.maximum(v, np.float32(1e-30)))))
    updates[t_previous] = t
    return updates
