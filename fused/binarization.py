"""Binarization in one pass, and the random stream of stochastic binarization.

Reference: the plain expression in `binary_connect.binarization`.
"""

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.subtensor import Subtensor

from .op import Op, check, enabled


class PhiloxStream:
    """The random numbers for the binarizations of a layer: a counter-based generator,
    Philox4x32-10.

    Each binarization has its own key and a step that counts its evaluations, both in a shared
    variable. The random number of weight i is a function of key, step and i, whatever the number of
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
        """The shared variable (key, step) for another binarization."""
        key = self.seed + (self.binarizations << 32)
        self.binarizations += 1
        return theano.shared(np.array([key, 0], dtype="uint64"), "binarization_state")


class Binarize(Op):
    """Maps float32 weights of any shape and a float32 scalar H to weights of -H and +H.

    With a third input (key, step), a weight is +H with probability hard_sigmoid(W / H), and there
    is a second output: the next (key, step).
    """

    __props__ = ("stochastic",)
    source = "binarization.cpp"

    def __init__(self, stochastic):
        self.stochastic = stochastic
        self.function = "binarization::" + ("by_draw" if stochastic else "by_sign")

    def make_node(self, W, H, *state):
        W, H = (T.as_tensor_variable(x) for x in (W, H))
        check("binarize", [W, H, *state], "float32", "float32 0", *["uint64 1"] * self.stochastic)
        outputs = [T.TensorType("float32", W.broadcastable)()] + [s.type() for s in state]
        return theano.Apply(self, [W, H, *state], outputs)

    def infer_shape(self, node, shapes):
        return [shapes[0], *shapes[2:]]

    def grad(self, inputs, output_grads):
        # As in the plain expression, where a condition has no gradient.
        zeros = [x.zeros_like() for x in inputs[:2]]
        return zeros + [theano.gradient.DisconnectedType()() for _ in inputs[2:]]

    def connection_pattern(self, node):
        outputs = [False] * (len(node.outputs) - 1)
        return [[True, *outputs], [True, *outputs]] + [[False] * len(node.outputs)] * len(outputs)


def applicable(W, H, stream=None):
    """Whether `binarize` can replace the plain expression: it has the right types, and the stream,
    if there is one, is a :class:`PhiloxStream`."""
    W, H = (T.as_tensor_variable(x) for x in (W, H))
    return (
        enabled()
        and (W.dtype, H.dtype, H.ndim) == ("float32", "float32", 0)
        and (stream is None or isinstance(stream, PhiloxStream))
    )


def binarize(W, H, stream=None):
    """Binarize weights `W` to -H or +H: by their sign (zero becomes +H, NaN becomes -H) or, given a
    :class:`PhiloxStream`, by sampling at each evaluation.

    Parameters
    ----------
    W : float32 expression of any shape
    H : float or float32 scalar
    stream : PhiloxStream or None

    Returns
    -------
    float32 expression of the shape of `W`

    Raises
    ------
    TypeError
        For other types.
    """
    if stream is None:
        return Binarize(stochastic=False)(W, H)
    state = stream.new_state()
    Wb, state.default_update = Binarize(stochastic=True)(W, H, state)
    return Wb


def binarized(variable):
    """Whether all values of a Theano variable are -H or +H: it is the output of :func:`binarize`,
    or a part or new shape of that, flipped or not."""
    while variable.owner is not None and isinstance(variable.owner.op, Subtensor | T.Reshape):
        variable = variable.owner.inputs[0]
    return variable.owner is not None and isinstance(variable.owner.op, Binarize)
