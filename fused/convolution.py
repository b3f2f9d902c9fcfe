"""3x3 convolution, threaded and vectorized, for the networks of CIFAR-10 and SVHN.

On processors with AVX-512, a graph rewrite replaces a convolution with binarized filters by an op
that uses additions (binary_convolution.cpp), as for products with binarized weights (product.py).
If an image is binary too, that op counts bits (counted_images.h), on processors with VPOPCNTDQ.
Processors with AVX2 but without VPOPCNTDQ count bits if the graph says that all images are
binarized (signs.py). The gradient with respect to the filters of binary images is of additions as
well (binary_filter_gradient.cpp). All other convolutions use Winograd's minimal filtering
(winograd.h): F(4x4, 3x3) has 4 times fewer multiplications than a direct convolution. Without
AVX-512, the forward pass with binarized filters and other images uses F(2x2, 3x3), with 2.25 times
fewer, because its transforms only add and halve, so that +-1 stay exact.

Reference: ``theano.tensor.nnet.conv2d(input, filters, border_mode=1)`` and its gradients.
"""

from original_stack import machine

import theano
import theano.tensor as T
from theano.gof import ParamsType
from theano.scalar import bool as bool_t

from .binarization import binarized
from .op import Op, check, enabled
from .product import INSTRUCTIONS
from .signs import SignConvolution, countable


def conv3x3(input, filters):
    """Convolve with 3x3 filters, stride 1 and a zero border of one pixel: images keep their size.

    This is a true convolution, which flips the filters. Results do not depend on the number of
    threads. For up to 512 channels, errors stay below 5e-6 of the largest value of the output, and
    below 1e-5 for gradients. If inputs are small integers and filters come from
    :func:`fused.binarize` with H = 1, the output is exact. A value that is not finite may turn
    its whole tile into NaN, at most 4 pixels further than in the reference. Sums with binarized
    filters are scaled by H last, so they may overflow if H < 1.

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
        For variables that are not 4D and float32.
    ValueError
        When the function runs, if filters are not 3x3 or do not fit the channels of the input.
    """
    return Convolution()(input, filters)


def applicable(layer, input):
    """Whether conv3x3 can compute the convolution of a :class:`lasagne.layers.Conv2DLayer`, and is
    faster. It is not if there are fewer filters than lanes in a vector.

    Parameters
    ----------
    layer : Conv2DLayer
    input : Theano variable
        What the layer convolves.
    """
    return (
        enabled()
        and input.ndim == 4
        and input.dtype == layer.W.dtype == "float32"
        and layer.num_filters >= 16
        and layer.filter_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.pad in ("same", (1, 1))
        and layer.convolution is T.nnet.conv2d
    )


class _Op(Op):
    """An op of two 4D float32 inputs and one output."""

    source = "convolution.cpp"

    def make_node(self, first, second):
        variables = [T.as_tensor_variable(v) for v in (first, second)]
        check("conv3x3", variables, "float32 4", "float32 4")
        return theano.Apply(self, variables, [T.TensorType("float32", self.pattern(*variables))()])


class Convolution(_Op):
    """Maps images and filters to the convolution or, if `transposed`, the gradient with respect to
    its output and filters to the gradient with respect to its input. Tiles have `tile` x `tile`
    outputs; `tile` is 2 or 4."""

    __props__ = ("transposed", "tile")
    params_type = ParamsType(transposed=bool_t)

    def __init__(self, transposed=False, tile=4):
        self.transposed = transposed
        self.tile = tile
        self.function = f"convolution::convolve_arrays<{tile}>"

    def pattern(self, images, filters):
        channels = filters.broadcastable[self.transposed]
        return (images.broadcastable[0], channels, *images.broadcastable[2:])

    def infer_shape(self, node, shapes):
        (batch, _, height, width), filters = shapes
        return [(batch, filters[self.transposed], height, width)]

    def grad(self, inputs, output_gradients):
        images, filters = inputs
        gradient = T.cast(output_gradients[0], "float32")
        pair = (gradient, images) if self.transposed else (images, gradient)
        gradients = [type(self)(not self.transposed)(gradient, filters), _FilterGradient()(*pair)]
        return [
            T.patternbroadcast(g, v.broadcastable) for g, v in zip(gradients, inputs, strict=True)
        ]


class BinaryConvolution(Convolution):
    """`Convolution` for filters that consist of -H and +H, on processors with AVX-512."""

    __props__ = ("transposed",)
    source = "binary_convolution.cpp"
    instructions = INSTRUCTIONS

    def __init__(self, transposed):
        self.transposed = transposed
        self.function = "convolution::convolve_binary"


class _FilterGradient(_Op):
    """Maps the input of a convolution and the gradient with respect to its output to the gradient
    with respect to the filters."""

    function = "convolution::filter_gradient_arrays"

    def pattern(self, input, gradient):
        return (gradient.broadcastable[1], input.broadcastable[1], False, False)

    def infer_shape(self, node, shapes):
        (_, channels, _, _), (_, filters, _, _) = shapes
        return [(filters, channels, 3, 3)]


class BinaryFilterGradient(_FilterGradient):
    """`_FilterGradient` for images of -c and +c, on processors with AVX-512."""

    source = "binary_filter_gradient.cpp"
    function = "convolution::binary_filter_gradient"
    instructions = INSTRUCTIONS


@theano.gof.local_optimizer([Convolution])
def fuse_binarized_filters(node):
    if type(node.op) is not Convolution or not (binarized(node.inputs[1]) and enabled()):
        return False
    if not node.op.transposed and countable(*node.inputs):
        return [SignConvolution()(*node.inputs)]
    if machine.has(*INSTRUCTIONS):
        return [BinaryConvolution(node.op.transposed)(*node.inputs)]
    if node.op.transposed or node.op.tile == 2:
        return False
    return [Convolution(tile=2)(*node.inputs)]


@theano.gof.local_optimizer([_FilterGradient])
def fuse_binarized_images(node):
    if type(node.op) is not _FilterGradient or not (binarized(node.inputs[0]) and enabled()):
        return False
    return [BinaryFilterGradient()(*node.inputs)] if machine.has(*INSTRUCTIONS) else False


# After the graph is simplified, as for products.
for rewrite in (fuse_binarized_filters, fuse_binarized_images):
    theano.compile.optdb.register(
        rewrite.__name__, theano.gof.TopoOptimizer(rewrite), 1.65, "fast_run"
    )
