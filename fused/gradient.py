"""The update of weights together with their gradient, on processors with AVX-512.

In a network with binary activations, the gradient of the weights is a product X^T dY in which X is
-c, 0 (after dropout) or +c. A rewrite gives X and dY to the update of the weights, which computes a
few numbers of the gradient at a time, by additions (see kernels/gradient.h), and uses them at once.
So the gradient, as large as the weights, is neither stored nor read. Reference: the product and
:class:`fused.update.Update`. The order of additions is not that of BLAS, so results differ by
rounding.
"""

from original_stack import machine

import theano
import theano.tensor as T
from theano.tensor.elemwise import DimShuffle, Elemwise

from .binarization import binarized
from .op import enabled
from .product import INSTRUCTIONS
from .update import Update


class GradientUpdate(Update):
    """An `Update` one of whose inputs is X^T dY.

    Its inputs are those of the `Update` without the gradient, and then X (samples, rows) and dY
    (samples, columns), for weights (rows, columns).

    Parameters
    ----------
    scalar_op, inplace
        See `Update`.
    gradient : int
        The number of the gradient among the inputs of the `Update`.
    """

    __props__ = ("scalar_op", "gradient", "inplace")
    source = "gradient.h"
    instructions = INSTRUCTIONS

    def __init__(self, scalar_op, gradient, inplace=False):
        super().__init__(scalar_op, inplace)
        self.gradient = gradient

    def in_place(self):
        return GradientUpdate(self.scalar_op, self.gradient, inplace=True)

    def c_headers(self):
        return [*super().c_headers(), '"update.h"']

    def c_code(self, node, name, inputs, outputs, sub):
        *inputs, X, dY = inputs
        scalar = [all(x.broadcastable) for x in node.inputs[:-2]]
        inputs.insert(self.gradient, None)
        scalar.insert(self.gradient, False)
        loop = f"""
            const update::Gradient gradient({X}, {dY}, {inputs[0]});
            gradient.each([=](long first, long n, const float *given) {{
                #pragma omp simd
                for (long i = 0; i < n; ++i) {{
                    const long k = first + i;
                    const float x{self.gradient} = given[i];
                    ELEMENT
                }}
            }});"""
        return self.c_code_of(inputs, scalar, name, outputs, sub, loop)


def _binary(variable):
    """Whether a variable may be a binary activation, after dropout or not: a product of numbers or
    masks with binarized numbers or with a choice between two constants, or a new shape of it."""
    node = variable.owner
    if binarized(variable):
        return True
    if node is not None and isinstance(node.op, T.Reshape):
        return _binary(node.inputs[0])
    if node is None or not isinstance(node.op, Elemwise):
        return False
    operation = node.op.scalar_op
    if isinstance(operation, theano.scalar.Switch):
        return all(isinstance(_number(x), T.Constant) for x in node.inputs[1:])
    factors = isinstance(operation, theano.scalar.Mul | theano.scalar.TrueDiv)
    return factors and any(_binary(x) for x in node.inputs)


def _number(variable):
    """What is broadcast to `variable`."""
    while variable.owner is not None and isinstance(variable.owner.op, DimShuffle):
        variable = variable.owner.inputs[0]
    return variable


@theano.gof.local_optimizer([Update])
def fuse_gradient(node):
    if type(node.op) is not Update or not enabled() or not machine.has(*INSTRUCTIONS):
        return False
    for i, gradient in enumerate(node.inputs):
        product = gradient.owner
        if (
            i >= node.op.scalar_op.nout
            and product is not None
            and isinstance(product.op, T.Dot)
            and gradient.ndim == 2
            and gradient.clients == [(node, i)]
            and gradient.type == node.inputs[0].type
        ):
            left, dY = product.inputs
            turned = left.owner is not None and isinstance(left.owner.op, DimShuffle)
            X = left.owner.inputs[0] if turned and left.owner.op.new_order == (1, 0) else None
            if X is not None and X.dtype == dY.dtype == "float32" and _binary(X):
                others = [*node.inputs[:i], *node.inputs[i + 1 :]]
                op = GradientUpdate(node.op.scalar_op, i)
                return op(*others, X, dY, return_list=True)
    return False


# After updates are fused (1.6), and before products are given to BLAS (BlasOpt, 1.7).
theano.compile.optdb.register(
    "fuse_gradient", theano.gof.TopoOptimizer(fuse_gradient), 1.64, "fast_run"
)
