"""Products with binarized weights by additions: tables of signed sums in the place of BLAS, on
processors with AVX-512.

A graph rewrite puts this op in the place of ``T.dot(x, Wb)`` and of its gradient ``T.dot(y, Wb.T)``
where `Wb` comes from :func:`fused.binarize`. Twin: those products. Sums are taken in another
order than BLAS takes them, so they differ by rounding; sums of integers below 2^24 are the same.
"""

import original_stack
from original_stack import machine

import theano
import theano.tensor as T

from .binarization import binarized
from .op import COp, enabled


class BinaryProduct(COp):
    """float32 matrices x (rows, inputs) and W, all of whose values are -H or +H, to x W or, if
    `transposed`, x W^T."""

    __props__ = ("transposed",)

    def __init__(self, transposed):
        self.transposed = transposed
        function = "binary_product_transposed" if transposed else "binary_product"
        super().__init__("product.cpp", function)

    def c_compile_args(self):
        # Whatever processor THEANO_FLAGS name.
        return [*super().c_compile_args(), "-mavx512f", "-mavx512dq"]

    def make_node(self, x, W):
        pattern = (x.broadcastable[0], W.broadcastable[not self.transposed])
        return theano.Apply(self, [x, W], [T.TensorType("float32", pattern)()])

    def infer_shape(self, node, shapes):
        (rows, _), W = shapes
        return [(rows, W[not self.transposed])]


def available():
    """Whether this processor has the instructions."""
    return machine.has("avx512f", "avx512dq")


@theano.gof.local_optimizer([T.Dot])
def fuse_product(node):
    if not (isinstance(node.op, T.Dot) and enabled()):
        return False
    x, W = node.inputs
    made = W.owner
    transposed = bool(made and isinstance(made.op, T.DimShuffle) and made.op.new_order == (1, 0))
    binary = made.inputs[0] if transposed else W
    if (x.ndim, x.dtype, W.ndim) != (2, "float32", 2) or not (binarized(binary) and available()):
        return False
    return [BinaryProduct(transposed)(x, binary)]


# After the graph is simplified, before its products are given to BLAS (BlasOpt, 1.7).
theano.compile.optdb.register(
    "fuse_product", theano.gof.TopoOptimizer(fuse_product), 1.65, "fast_run"
)
