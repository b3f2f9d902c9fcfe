"""Binarization in one pass, and the stream that stochastic binarization draws from.

Twin: the plain expression in `binary_connect.binarization`.
"""

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.subtensor import Subtensor

from .op import COp


class PhiloxStream:
    """Where the binarizations of a layer draw from: a counter-based generator, Philox4x32-10.

    Each binarization has a key of its own and a step that its evaluations count, kept in a shared
    variable: the i-th weight's draw is a function of key, step and i, whatever the number of
    threads. Functions compiled from the binarization advance the step.

    Parameters
    ----------
    seed : int
        In [0, 2^32).
    """

    def __init__(self, seed):
        self.seed = seed
        self.binarizations = 0

    def new_state(self):
        """The shared variable (key, step) of one more binarization."""
        key = self.seed + (self.binarizations << 32)
        self.binarizations += 1
        return theano.shared(np.array([key, 0], dtype="uint64"), "binarization_state")


class Binarize(COp):
    """Weights of any shape and H to weights of -H and +H; with a third input (key, step), drawn
    with probability hard_sigmoid(W / H) of +H, and a second output: the next (key, step)."""

    __props__ = ("stochastic",)

    def __init__(self, stochastic):
        self.stochastic = stochastic
        function = "binarize_by_draw" if stochastic else "binarize_by_sign"
        super().__init__("binarization.cpp", function)

    def make_node(self, W, H, *state):
        W = T.cast(W, "float32")
        H = T.cast(H, "float32")
        outputs = [T.TensorType("float32", W.broadcastable)()] + [s.type() for s in state]
        return theano.Apply(self, [W, H, *state], outputs)

    def infer_shape(self, node, shapes):
        return [shapes[0], *shapes[2:]]

    def grad(self, inputs, output_grads):
        # As of the plain expression: a condition passes no gradient on.
        zeros = [x.zeros_like() for x in inputs[:2]]
        return zeros + [theano.gradient.DisconnectedType()() for _ in inputs[2:]]

    def connection_pattern(self, node):
        outputs = [False] * (len(node.outputs) - 1)
        return [[True, *outputs], [True, *outputs]] + [[False] * len(node.outputs)] * len(outputs)


def binarize(W, H, stream=None):
    """Weights `W`, binarized to -H or +H: by their sign (zero is +H) or, given a
    :class:`PhiloxStream`, drawn anew at each evaluation."""
    if stream is None:
        return Binarize(stochastic=False)(W, H)
    state = stream.new_state()
    Wb, state.default_update = Binarize(stochastic=True)(W, H, state)
    return Wb


def binarized(variable):
    """Whether a Theano variable is the output of :func:`binarize`, or a part of it, flipped or not:
    all its values are -H or +H."""
    while variable.owner is not None and isinstance(variable.owner.op, Subtensor):
        variable = variable.owner.inputs[0]
    return variable.owner is not None and isinstance(variable.owner.op, Binarize)
