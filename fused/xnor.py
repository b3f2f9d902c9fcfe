"""Layers of +-1 by exclusive or and population count (Binarized Neural Networks, Courbariaux et
al., 2016, arXiv:1602.02830, section 4 and Algorithm 5), exact for rows of any length.

A bit is 1 for +1 and 0 for -1. A uint64 word holds 64 bits: bit i of a row is in word i // 64, and
bits beyond the end are 0. A product of n signs is n - 2 popcount(x xor w) (kernels/xnor/counts.h).
There are kernels for AVX-512 with VPOPCNTDQ, for AVX-512 without it, for AVX2 and in plain C++;
the fastest that the processor has is used unless BINARYCONNECT_XNOR=avx512|avx512bw|avx2|plain
chooses another. References: the products of integers that the docstrings name.
"""

from original_stack import machine

import numpy as np
import theano
import theano.tensor as T
from theano.gof import ParamsType
from theano.scalar import int64

from .op import Op, check

PANEL = 8
KERNELS = {
    "avx512": ("avx512f", "avx512_vpopcntdq"),
    "avx512bw": ("avx512f", "avx512bw"),
    "avx2": ("avx2",),
    "plain": (),
}


def kernels():
    """Names of the kernels that this processor can run, the fastest first."""
    return [name for name, needed in KERNELS.items() if machine.has(*needed)]


def words(n):
    """Number of words that hold `n` bits."""
    return -(-n // 64)


def pack_bits(bits):
    """Booleans (..., n) as words (..., words(n)), which the ops take. Computed by numpy."""
    bits = np.asarray(bits, bool)
    padded = np.zeros((*bits.shape[:-1], 64 * words(bits.shape[-1])), bool)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_bits(words, n):
    """The first `n` bits of words (m,), as booleans."""
    octets = words.astype("<u8").view(np.uint8)
    return np.unpackbits(octets, count=n, bitorder="little").astype(bool)


def panels(weights):
    """Weights as words (units, words), arranged as the products read them: (ceil(units / 8), words,
    8). Computed by numpy."""
    units, n = weights.shape
    padded = np.zeros((-(-units // PANEL) * PANEL, n), np.uint64)
    padded[:units] = weights
    return np.ascontiguousarray(padded.reshape(len(padded) // PANEL, PANEL, n).transpose(0, 2, 1))


def pack(x):
    """The signs of float32 `x` (rows, n) as words (rows, words(n)); zero is +1, NaN is -1."""
    return _Op("pack", "bits", ("float32 2",), "uint64", 2)(x)


def planes(pixels):
    """The bits of uint8 `pixels` (rows, n) as words (rows, 8, words(n)): plane p has bit p of each
    pixel.

    If s_p = +-1 are the bits of plane p, sum_p 2^p s_p is 2 pixel - 255. A product with these rows
    is therefore the product with the input 2 pixel - 255.
    """
    return _Op("planes", "bits", ("uint8 2",), "uint64", 3)(pixels)


def dot(bits, panels, inputs, units):
    """``T.dot(x, W)`` as int32 (rows, units).

    Parameters
    ----------
    bits : uint64 variable of shape (rows, words) or (rows, planes, words)
        x of +-1. With several planes, x is the sum of 2^p times plane p (see `planes`). Bits that
        are 0 both in `bits` and in `panels` may lie anywhere between the inputs.
    panels : uint64 variable
        Weights of +-1, see the function `panels`.
    inputs, units : int
        The shape of W; (2^planes - 1) inputs is below 2^30.

    Raises
    ------
    ValueError
        When the function runs, if arrays do not fit, or if the processor does not have the kernel
        that BINARYCONNECT_XNOR names.
    """
    bits = T.as_tensor_variable(bits)
    if bits.ndim == 2:
        bits = bits.dimshuffle(0, "x", 1)
    return _Product("dot", "dot", "uint64 3", 2, inputs, units)(bits, panels)


def convolve(bits, panels, channels, filters):
    """``T.nnet.conv2d(x, W, border_mode=1)`` as int32 (batch, rows, columns, filters).

    This is a true convolution with 3x3 filters, stride 1 and a border of zeros, which are neither
    +1 nor -1.

    Parameters
    ----------
    bits : uint64 variable of shape (batch, rows, columns, words(channels))
        x of +-1.
    panels : uint64 variable
        The function `panels` of weights (filters, 9 words(channels)), which `pack_bits` makes of
        (filters, 9, channels); tap (i, j) of a filter has index 3 i + j.
    channels, filters : int

    Raises
    ------
    ValueError
        See `dot`.
    """
    return _Product("convolve", "convolve", "uint64 4", 4, channels, filters)(bits, panels)


def convolve_pixels(pixels, panels, channels, filters):
    """`convolve` of the images 2 `pixels` - 255, with a border of zeros.

    Parameters
    ----------
    pixels : uint8 variable of shape (batch, channels, rows, columns)
    panels : uint64 variable
        The function `panels` of the `pack_bits` of weights (filters, 9 channels), taps before
        channels.
    channels, filters : int
        255 x 9 channels is below 2^30.
    """
    op = _Product("convolve_pixels", "convolve", "uint8 4", 4, channels, filters)
    return op(pixels, panels)


def threshold(sums, thresholds, negative):
    """The bits (sums >= thresholds) xor negative, words (..., words(units)).

    Parameters
    ----------
    sums : int32 variable of shape (..., units)
    thresholds : int32 variable of shape (units,)
    negative : uint64 variable of shape (words(units),)
        The bit of a unit is 1 if the unit is +1 below its threshold.
    """
    sums = T.as_tensor_variable(sums)
    if not sums.ndim:
        raise TypeError("xnor.threshold takes sums of at least one axis; given none")
    types = ("int32", "int32 1", "uint64 1")
    return _Op("threshold", "bits", types, "uint64", None)(sums, thresholds, negative)


def pool(bits, negative):
    """The bits that `threshold` gives after 2x2 max pooling of the sums, computed from the bits
    before the pooling.

    A bit is the disjunction of four pixels or, if its unit is `negative`, their conjunction. The
    borders of odd images are ignored.

    Parameters
    ----------
    bits : uint64 variable of shape (batch, rows, columns, words)
    negative : uint64 variable of shape (words,)
    """
    return _Op("pool", "bits", ("uint64 4", "uint64 1"), "uint64", 4)(bits, negative)


class _Op(Op):
    """A function in kernels/xnor/. Its output has `ndim` axes; None means as many as the input."""

    __props__ = ("name", "source", "types", "dtype", "ndim")

    def __init__(self, name, source, types, dtype, ndim):
        self.name = name
        self.source = f"xnor/{source}.cpp"
        self.types = types
        self.dtype = dtype
        self.ndim = ndim
        self.function = f"xnor::{name}"

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(x) for x in inputs]
        check(f"xnor.{self.name}", inputs, *self.types)
        ndim = inputs[0].ndim if self.ndim is None else self.ndim
        return theano.Apply(self, inputs, [T.TensorType(self.dtype, (False,) * ndim)()])


class _Product(_Op):
    """A product with weights of a shape. The sizes are values at run time, so that all layers share
    compiled code."""

    __props__ = (*_Op.__props__, "inputs", "units")
    params_type = ParamsType(inputs=int64, units=int64)

    def __init__(self, name, source, rows, ndim, inputs, units):
        super().__init__(name, source, (rows, "uint64 3"), "int32", ndim)
        self.inputs = inputs
        self.units = units
