"""Products with binarized weights by additions, on processors with AVX-512: tables of signed sums
instead of BLAS.

A graph rewrite replaces ``T.dot(x, Wb)`` and its gradient ``T.dot(y, Wb.T)`` by this op if `Wb`
comes from :func:`fused.binarize`. Reference: these products. The order of additions is not that of
BLAS, so results differ by rounding; sums of integers below 2^24 are equal.
"""

from original_stack import machine

import theano
import theano.tensor as T
from theano.gof import ParamsType
from theano.scalar import bool as bool_t

from .binarization import Binarize, binarized
from .op import Op, enabled

INSTRUCTIONS = ("avx512f", "avx512dq")


class BinaryProduct(Op):
    """Maps float32 matrices x (rows, inputs) and W, whose values are -H or +H, to x W or, if
    `transposed`, to x W^T.

    If `latent`, it takes real-valued weights and H, and binarizes the weights by their sign as it
    packs them. So binary weights as numbers are neither stored nor read.
    """

    __props__ = ("transposed", "latent")
    source = "product.cpp"
    params_type = ParamsType(transposed=bool_t)
    instructions = INSTRUCTIONS

    def __init__(self, transposed, latent=False):
        self.transposed = transposed
        self.latent = latent
        self.function = "product::multiply" + "_latent" * latent

    def make_node(self, x, W, *H):
        pattern = (x.broadcastable[0], W.broadcastable[not self.transposed])
        return theano.Apply(self, [x, W, *H], [T.TensorType("float32", pattern)()])

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
        return False
    op = getattr(weights.owner, "op", None)
    latent = isinstance(op, Binarize) and not op.stochastic
    return [BinaryProduct(transposed, latent)(x, *(weights.owner.inputs if latent else [weights]))]


# After the graph is simplified, but before products are given to BLAS (BlasOpt, 1.7).
theano.compile.optdb.register(
    "fuse_product", theano.gof.TopoOptimizer(fuse_product), 1.65, "fast_run"
)
