"""2x2 max pooling, threaded and vectorized, for the networks of CIFAR-10 and SVHN.

A graph rewrite replaces ``theano.tensor.signal.pool.pool_2d(input, (2, 2), ignore_border=True)`` on
4D float32 variables, and its gradient, by these ops. Reference: the replaced ops; results are equal
bit for bit. As in Theano, if several of the four pixels are the maximum, each gets the whole
gradient. A NaN is the maximum; in Theano only if it is the first pixel.
"""

import theano
import theano.tensor as T
from theano.tensor.signal.pool import MaxPoolGrad, Pool

from .op import Op, enabled


class MaxPool(Op):
    """Maps float32 images (batch, channels, height, width) to images of half the size."""

    source = "pooling.cpp"
    function = "pooling::max_pool"

    def make_node(self, images):
        pattern = (*images.broadcastable[:2], False, False)
        return theano.Apply(self, [images], [T.TensorType("float32", pattern)()])

    def infer_shape(self, node, shapes):
        ((batch, channels, height, width),) = shapes
        return [(batch, channels, height // 2, width // 2)]


class MaxPoolGradient(Op):
    """Maps the images, and the gradient with respect to the output, to the gradient with respect to
    the images."""

    source = "pooling.cpp"
    function = "pooling::max_pool_gradient"

    def make_node(self, images, gradient):
        return theano.Apply(self, [images, gradient], [images.type()])

    def infer_shape(self, node, shapes):
        return [shapes[0]]


def applicable(node):
    """Whether these ops can replace a node of Theano's pooling."""
    if not (node.op.mode == "max" and node.op.ignore_border and node.op.ndim == 2):
        return False
    *tensors, size, stride, pad = node.inputs
    return all((x.ndim, x.dtype) == (4, "float32") for x in tensors) and all(
        isinstance(variable, T.Constant) and (variable.data == value).all()
        for variable, value in ((size, 2), (stride, 2), (pad, 0))
    )


@theano.tensor.opt.register_specialize
@theano.gof.local_optimizer([Pool, MaxPoolGrad])
def fuse_pooling(node):
    if not (enabled() and applicable(node)):
        return False
    if isinstance(node.op, Pool):
        return [MaxPool()(node.inputs[0])]
    images, _, gradient = node.inputs[:3]
    return [MaxPoolGradient()(images, gradient)]
