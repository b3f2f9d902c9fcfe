"""3x3 convolution, threaded and vectorised, for the networks of CIFAR-10 and SVHN.

With binarized filters, on processors with AVX-512: by additions (binary_convolution.cpp), as
products with binarized weights are (product.py); a graph rewrite puts that op in the place of the
other. Else by Winograd's minimal filtering (convolution.cpp), F(4x4, 3x3) of Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks" (2016), with 4 times fewer multiplications than a
direct convolution; with binarized filters F(2x2, 3x3), with 2.25 times fewer: its transforms only
add and halve, so +-1 stay exact.
"""

import zlib
from pathlib import Path

import theano
import theano.tensor as T

from .binarization import binarized
from .op import enabled
from .product import available


def _source(*files):
    return "".join((Path(__file__).parent / "kernels" / file).read_text() for file in files)


def conv3x3(input, filters):
    """Convolve with 3x3 filters, stride 1 and a zero border of one pixel: images keep their size.

    Computes ``theano.tensor.nnet.conv2d(input, filters, border_mode=1)``, a true convolution
    (filters are flipped), and its gradients, threaded; results do not depend on the number of
    threads. Up to 512 channels, errors stay below 5e-6 of the largest value of the output, for
    gradients 1e-5. Where inputs are small whole numbers and filters come from
    :func:`fused.binarize` with H = 1, the output is exact.

    Parameters
    ----------
    input : 4D float32 variable, shape (batch, channels, height, width)
    filters : 4D float32 variable, shape (filters, channels, 3, 3)

    Returns
    -------
    4D float32 variable, shape (batch, filters, height, width)

    Raises
    ------
    TypeError
        for variables that are not 4D and float32.
    ValueError
        when the function runs, for filters that are not 3x3 or have other channels than the input.
    """
    return Convolution()(input, filters)


def applicable(layer, input):
    """Whether conv3x3 computes the convolution of a :class:`lasagne.layers.Conv2DLayer`, and pays:
    with fewer filters than a vector has lanes it does not.

    Parameters
    ----------
    layer : Conv2DLayer
    input : Theano variable
        What the layer is to convolve.
    """
    return (
        input.dtype == layer.W.dtype == "float32"
        and layer.num_filters >= 16
        and layer.filter_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.pad in ("same", (1, 1))
        and layer.convolution is T.nnet.conv2d
    )


class _Op(theano.Op):
    """An op of two 4D float32 inputs and one output, in C++: `call` of its source."""

    source = _source("images.h", "convolution.cpp")

    def make_node(self, first, second):
        variables = [T.as_tensor_variable(v) for v in (first, second)]
        for variable in variables:
            if variable.dtype != "float32" or variable.ndim != 4:
                raise TypeError(f"conv3x3 takes 4D float32 variables, got {variable.type}")
        return theano.Apply(self, variables, [T.TensorType("float32", self.pattern(*variables))()])

    def c_support_code(self):
        return self.source

    def c_code(self, node, name, inputs, outputs, sub):
        call = self.call(*inputs, f"&{outputs[0]}")
        return f"if (convolution::{call}) {{ {sub['fail']} }}"

    def c_compile_args(self):
        return ["-fopenmp"]

    def c_code_cache_version(self):
        # Of the call as well: another version of this file may have another for the same op.
        return (zlib.crc32((self.source + self.call("", "", "")).encode()),)


class Convolution(_Op):
    """Images and filters to the convolution or, if `transposed`, gradients of its output and
    filters to those of its input; in tiles of `tile` x `tile` outputs, 2 or 4."""

    __props__ = ("transposed", "tile")

    def __init__(self, transposed=False, tile=4):
        self.transposed, self.tile = transposed, tile

    def call(self, images, filters, output):
        return f"convolve_arrays<{self.tile}>({images}, {filters}, {self.transposed:d}, {output})"

    def pattern(self, images, filters):
        channels = filters.broadcastable[self.transposed]
        return (images.broadcastable[0], channels, *images.broadcastable[2:])

    def infer_shape(self, node, shapes):
        (batch, _, height, width), filters = shapes
        return [(batch, filters[self.transposed], height, width)]

    def grad(self, inputs, output_gradients):
        images, filters = inputs
        (gradient,) = output_gradients
        pair = (gradient, images) if self.transposed else (images, gradient)
        gradients = [type(self)(not self.transposed)(gradient, filters), _FilterGradient()(*pair)]
        return [
            T.patternbroadcast(g, v.broadcastable) for g, v in zip(gradients, inputs, strict=True)
        ]


class BinaryConvolution(Convolution):
    """`Convolution` with filters all of whose values are -H or +H, on processors with AVX-512."""

    __props__ = ("transposed",)
    source = _source("images.h", "binary_convolution.cpp")

    def call(self, images, filters, output):
        return f"convolve_binary_arrays({images}, {filters}, {self.transposed:d}, {output})"

    def c_compile_args(self):
        # Whatever processor THEANO_FLAGS name.
        return [*super().c_compile_args(), "-mavx512f"]


class _FilterGradient(_Op):
    """The convolution's input and gradients of its output to those of the filters."""

    __props__ = ()

    def call(self, input, gradient, output):
        return f"filter_gradient_arrays<4>({input}, {gradient}, {output})"

    def pattern(self, input, gradient):
        return (gradient.broadcastable[1], input.broadcastable[1], False, False)

    def infer_shape(self, node, shapes):
        (_, channels, _, _), (_, filters, _, _) = shapes
        return [(filters, channels, 3, 3)]


@theano.gof.local_optimizer([Convolution])
def fuse_binarized_filters(node):
    if type(node.op) is not Convolution or not (binarized(node.inputs[1]) and enabled()):
        return False
    if available():
        return [BinaryConvolution(node.op.transposed)(*node.inputs)]
    if node.op.transposed or node.op.tile == 2:
        return False
    return [Convolution(tile=2)(*node.inputs)]


# After the graph is simplified, as products are.
theano.compile.optdb.register(
    "fuse_binarized_filters", theano.gof.TopoOptimizer(fuse_binarized_filters), 1.65, "fast_run"
)
