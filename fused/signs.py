"""Products and 3x3 convolutions of binary activations with binary weights by counting bits, for
training on processors without VPOPCNTDQ.

The numbers are packed, multiplied by the kernels of networks that are packed already, and scaled;
xnor.py says how BINARYCONNECT_XNOR names a kernel. References: ``T.dot(x, W)`` and
``T.nnet.conv2d(x, W, border_mode=1)``. Sums below 2^24 are exact before they are scaled. On
processors with VPOPCNTDQ, the ops of product.py and convolution.py count bits themselves.
"""

from original_stack import machine

import theano
import theano.tensor as T

from .binarization import binarized
from .op import Op, enabled


def countable(x, W):
    """Whether both variables are binarized, and this processor counts bits by these ops."""
    return (
        enabled()
        and binarized(x)
        and binarized(W)
        and machine.has("avx2")
        and not machine.has("avx512_vpopcntdq")
    )


class SignProduct(Op):
    """Maps x (rows, inputs) of -c and +c and W (inputs, units) of -H and +H to x W, of float32."""

    source = "xnor/signs.cpp"
    function = "xnor::dot_signs"

    def make_node(self, x, W):
        pattern = (x.broadcastable[0], W.broadcastable[1])
        return theano.Apply(self, [x, W], [T.TensorType("float32", pattern)()])

    def infer_shape(self, node, shapes):
        (rows, _), (_, units) = shapes
        return [(rows, units)]


class SignConvolution(Op):
    """Maps images (batch, channels, height, width) of -c and +c and filters (filters, channels, 3,
    3) of -H and +H to the convolution of :func:`fused.conv3x3`, of float32."""

    source = "xnor/signs.cpp"
    function = "xnor::convolve_signs"

    def make_node(self, images, filters):
        (batch, _, *size), (outputs, *_) = images.broadcastable, filters.broadcastable
        output = T.TensorType("float32", (batch, outputs, *size))()
        return theano.Apply(self, [images, filters], [output])

    def infer_shape(self, node, shapes):
        (batch, _, height, width), (filters, *_) = shapes
        return [(batch, filters, height, width)]
