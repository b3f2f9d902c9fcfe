"""3x3 convolution by Winograd's minimal filtering, threaded and vectorised, for the networks of
CIFAR-10 and SVHN.

The convolution is F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks" (2016), with 2.25 times fewer multiplications than a direct one: it transforms filters by
sums and halves only, so filters of +-1 stay exact. Gradients are F(4x4, 3x3), with 4 times fewer.
"""

import zlib
from pathlib import Path

import theano
import theano.tensor as T

_SOURCE = (Path(__file__).parent / "convolution.cpp").read_text()


def conv3x3(input, filters):
    """Convolve with 3x3 filters, stride 1 and a zero border of one pixel: images keep their size.

    Computes ``theano.tensor.nnet.conv2d(input, filters, border_mode=1)``, a true convolution
    (filters are flipped), and its gradients, threaded; results do not depend on the number of
    threads. Up to 512 channels, errors stay below 2e-6 of the largest value of the output (as those
    of a direct convolution in float32), for gradients 1e-5. Where inputs are small whole numbers
    and filters +-1, the output is exact.

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
    return _Convolution(tile=2)(input, filters)


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


class _WinogradOp(theano.Op):
    """`tile` is the outputs of a tile in each direction: 2 or (for gradients) 4."""

    __props__ = ("tile",)

    def __init__(self, tile):
        self.tile = tile

    def make_node(self, first, second):
        variables = [T.as_tensor_variable(v) for v in (first, second)]
        for variable in variables:
            if variable.dtype != "float32" or variable.ndim != 4:
                raise TypeError(f"conv3x3 takes 4D float32 variables, got {variable.type}")
        return theano.Apply(self, variables, [T.TensorType("float32", self._pattern(*variables))()])

    def c_support_code(self):
        return _SOURCE

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = f"{inputs[0]}, {inputs[1]}, &{outputs[0]}"
        return f"if (winograd::{self.function}<{self.tile}>({arguments})) {{ {sub['fail']} }}"

    def c_compile_args(self):
        return ["-fopenmp"]

    def c_code_cache_version(self):
        return (zlib.crc32(_SOURCE.encode()),)


class _Convolution(_WinogradOp):
    function = "convolve_arrays"  # of convolution.cpp

    @staticmethod
    def _pattern(input, filters):
        return (input.broadcastable[0], filters.broadcastable[0], *input.broadcastable[2:])

    def infer_shape(self, node, shapes):
        (batch, _, height, width), (filters, _, _, _) = shapes
        return [(batch, filters, height, width)]

    def grad(self, inputs, output_gradients):
        input, filters = inputs
        (gradient,) = output_gradients
        # A convolution's transpose is one with the filters transposed and turned by 180 degrees.
        turned = filters.dimshuffle(1, 0, 2, 3)[:, :, ::-1, ::-1]
        return [
            T.patternbroadcast(_Convolution(tile=4)(gradient, turned), input.broadcastable),
            T.patternbroadcast(_FilterGradient(tile=4)(input, gradient), filters.broadcastable),
        ]


class _FilterGradient(_WinogradOp):
    function = "filter_gradient_arrays"  # of convolution.cpp

    @staticmethod
    def _pattern(input, gradient):
        return (gradient.broadcastable[1], input.broadcastable[1], False, False)

    def infer_shape(self, node, shapes):
        (_, channels, _, _), (_, filters, _, _) = shapes
        return [(filters, channels, 3, 3)]
