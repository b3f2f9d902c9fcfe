"""Sums over all axes but that of the channels, as gradients of biases are, threaded and vectorized.

A graph rewrite replaces ``x.sum(0)`` of a float32 matrix and ``x.sum((0, 2, 3))`` of float32 images
by this op. Reference: the replaced op. Both add in double precision, and round the sum once.
"""

import theano
import theano.tensor as T

from .op import Op, enabled


class ChannelSum(Op):
    """Maps float32 x (batch, channels, ...) to its sums (channels,)."""

    source = "sums.cpp"
    function = "normalization::sum_channels"

    def make_node(self, x):
        return theano.Apply(self, [x], [T.TensorType("float32", (x.broadcastable[1],))()])

    def infer_shape(self, node, shapes):
        return [(shapes[0][1],)]


def applicable(node):
    """Whether this op can replace a node of Theano's sum."""
    (x,) = node.inputs
    return (
        x.dtype == node.outputs[0].dtype == "float32"
        and node.op.acc_dtype == "float64"
        and (x.ndim, tuple(node.op.axis or ())) in ((2, (0,)), (4, (0, 2, 3)))
    )


@theano.tensor.opt.register_specialize
@theano.gof.local_optimizer([T.Sum])
def fuse_sum(node):
    return [ChannelSum()(*node.inputs)] if enabled() and applicable(node) else False
