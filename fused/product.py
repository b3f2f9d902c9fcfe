"""Products with binarized weights by additions, on processors with AVX-512: tables of signed sums
instead of BLAS.

A graph rewrite replaces ``T.dot(x, Wb)`` and its gradient ``T.dot(y, Wb.T)`` by
:class:`BinaryProduct` if `Wb` comes from :func:`fused.binarize`. The signs of the weights are
packed once for both. Reference: these products. The order of additions is not that of BLAS, so
results differ by rounding; sums of integers below 2^24 are equal. If x is of binary activations,
after dropout or not, the op counts bits instead on processors with VPOPCNTDQ: the same integers.
Without AVX-512, products of binarized numbers with binarized weights count bits too (signs.py).
"""

from original_stack import machine

import theano
import theano.tensor as T
from theano.gof import ParamsType
from theano.scalar import bool as bool_t

from .binarization import Binarize, binarized
from .op import Op, enabled
from .signs import SignProduct, countable

INSTRUCTIONS = ("avx512f", "avx512dq")


class PackSigns(Op):
    """Maps a float32 matrix W, whose values are -H or +H, to its signs, one bit each, in the order
    of a product x W and in that of x W^T: two uint32 vectors, see kernels/product.cpp.

    If `latent`, it takes real-valued weights and H, and binarizes the weights by their sign. So
    binary weights as numbers are neither stored nor read.
    """

    __props__ = ("latent",)
    source = "product.cpp"
    instructions = INSTRUCTIONS

    def __init__(self, latent):
        self.latent = latent
        self.function = "product::pack_" + ("latent" if latent else "binary")

    def make_node(self, W, *H):
        outputs = [T.TensorType("uint32", (False,))() for _ in range(2)]
        return theano.Apply(self, [W, *H], outputs)


class BinaryProduct(Op):
    """Maps a float32 matrix x (rows, inputs), the W of :class:`PackSigns`, and its signs in the
    order of this product to x W or, if `transposed`, to x W^T. If `latent`, it takes H too, and of
    W only the shape. Sums are scaled by H last, so they may overflow if H < 1."""

    __props__ = ("transposed", "latent")
    source = "product.cpp"
    params_type = ParamsType(transposed=bool_t)
    instructions = INSTRUCTIONS

    def __init__(self, transposed, latent):
        self.transposed = transposed
        self.latent = latent
        self.function = "product::multiply_" + ("latent" if latent else "binary")

    def make_node(self, x, W, signs, *H):
        pattern = (x.broadcastable[0], W.broadcastable[not self.transposed])
        return theano.Apply(self, [x, W, signs, *H], [T.TensorType("float32", pattern)()])

    def infer_shape(self, node, shapes):
        (rows, _), W = shapes[:2]
        return [(rows, W[not self.transposed])]


def applicable(x, W):
    """Whether `BinaryProduct` can compute the product of `x` with `W` or its transpose, and this
    processor has the instructions."""
    return (
        enabled()
        and (x.ndim, x.dtype) == (2, "float32")
        and W.ndim == 2
        and binarized(W)
        and machine.has(*INSTRUCTIONS)
    )


@theano.gof.local_optimizer([T.Dot])
def fuse_product(node):
    if not isinstance(node.op, T.Dot):
        return False
    x, W = node.inputs
    made = W.owner
    transposed = bool(made and isinstance(made.op, T.DimShuffle) and made.op.new_order == (1, 0))
    weights = made.inputs[0] if transposed else W
    if not applicable(x, weights):
        counted = x.ndim == W.ndim == 2 and countable(x, W)
        return [SignProduct()(x, W)] if counted else False
    op = getattr(weights.owner, "op", None)
    latent = isinstance(op, Binarize) and not op.stochastic
    W, *H = weights.owner.inputs if latent else [weights]
    # Equal nodes are merged, so that the signs are packed once for the product and its gradient.
    signs = PackSigns(latent)(W, *H)[transposed]
    return [BinaryProduct(transposed, latent)(x, W, signs, *H)]


# After the graph is simplified, but before products are given to BLAS (BlasOpt, 1.7).
theano.compile.optdb.register(
    "fuse_product", theano.gof.TopoOptimizer(fuse_product), 1.65, "fast_run"
)
