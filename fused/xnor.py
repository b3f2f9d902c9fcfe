"""Layers of +-1 by exclusive or and population count (Binarized Neural Networks, Courbariaux et
al., 2016, arXiv:1602.02830, section 1.5 and Algorithms 4 and 5), exact for rows of any length.

A bit is 1 for +1 and 0 for -1, 64 to a uint64 word: bit i of a row in word i // 64, bits beyond the
end are 0. The kernel is the fastest that the processor has, of AVX-512 with VPOPCNTDQ, AVX2 and
plain C; BINARYCONNECT_XNOR=avx512|avx2|plain chooses another. Twins: the products of whole numbers
that the docstrings name.
"""

import os

import numpy as np
import theano
import theano.tensor as T
from theano.gof import ParamsType
from theano.scalar import int64

from .op import COp

PANEL = 8


def kernels():
    """Names of the kernels that this processor has, the fastest first."""
    bits = T.TensorType("uint64", (False,) * 2)()
    function = theano.function([bits], dot(bits, np.zeros((1, 1, PANEL), np.uint64), 1, 1))
    found, chosen = [], os.environ.get("BINARYCONNECT_XNOR")
    for name in ("avx512", "avx2", "plain"):
        os.environ["BINARYCONNECT_XNOR"] = name
        try:
            function(np.zeros((1, 1), np.uint64))
            found.append(name)
        except ValueError:
            pass
    del os.environ["BINARYCONNECT_XNOR"]
    if chosen is not None:
        os.environ["BINARYCONNECT_XNOR"] = chosen
    return found


def words(n):
    """Number of words that hold `n` bits."""
    return -(-n // 64)


def pack_bits(bits):
    """Booleans (..., n) as words (..., words(n)): what the ops take, by numpy."""
    bits = np.asarray(bits, bool)
    padded = np.zeros((*bits.shape[:-1], 64 * words(bits.shape[-1])), bool)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_bits(words, n):
    """The first `n` of the bits of words (m,), as booleans."""
    octets = words.astype("<u8").view(np.uint8)
    return np.unpackbits(octets, count=n, bitorder="little").astype(bool)


def panels(weights):
    """Weights, words (units, words), in the order of the products' memory: (ceil(units / 8), words,
    8), by numpy."""
    units, n = weights.shape
    padded = np.zeros((-(-units // PANEL) * PANEL, n), np.uint64)
    padded[:units] = weights
    return np.ascontiguousarray(padded.reshape(-1, PANEL, n).transpose(0, 2, 1))


def pack(x):
    """The signs of float32 `x` (rows, n), zero being +1, as words (rows, words(n))."""
    return _Op("pack", "uint64")(x)


def planes(pixels):
    """The bits of uint8 `pixels` (rows, n) as words (rows, 8, words(n)): plane p has bit p of each.

    With s_p = +-1 the bits of plane p, sum_p 2^p s_p is 2 pixel - 255: the product with these rows
    is that with the input 2 pixel - 255.
    """
    return _Op("planes", "uint64")(pixels)


def dot(bits, panels, inputs, units):
    """``T.dot(x, W)`` as int32 (rows, units).

    Parameters
    ----------
    bits : uint64 variable of shape (rows, words) or (rows, planes, words)
        x of +-1; of several planes, the sum of 2^p times plane p (see `planes`). Bits of 0 in both
        `bits` and `panels` may lie anywhere between the inputs.
    panels : uint64 variable
        Weights of +-1; see the function of this name.
    inputs, units : int
        The shape of W; (2^planes - 1) inputs is below 2^30.

    Raises
    ------
    ValueError
        when the function runs, for arrays that do not fit, or a BINARYCONNECT_XNOR that the
        processor does not have.
    """
    bits = T.as_tensor_variable(bits)
    if bits.ndim == 2:
        bits = bits.dimshuffle(0, "x", 1)
    return _Op("dot", "int32", inputs, units)(bits, panels)


def convolve(bits, panels, channels, filters):
    """``T.nnet.conv2d(x, W, border_mode=1)``, a true convolution of 3x3 with stride 1 and a border
    of zeros, which are neither +1 nor -1; int32 (batch, rows, columns, filters).

    Parameters
    ----------
    bits : uint64 variable of shape (batch, rows, columns, words(channels))
        x of +-1.
    panels : uint64 variable
        Of weights (filters, 9 words(channels)): those of `pack_bits` of (filters, 9, channels),
        where 3 i + j is the place (i, j) in the filter.
    channels, filters : int

    Raises
    ------
    ValueError
        See `dot`.
    """
    return _Op("convolve", "int32", channels, filters)(bits, panels)


def convolve_pixels(pixels, panels, channels, filters):
    """The same of the images 2 `pixels` - 255, with a border of zeros.

    Parameters
    ----------
    pixels : uint8 variable of shape (batch, channels, rows, columns)
    panels : uint64 variable
        Of `pack_bits` of weights (filters, 9 channels), the place in the filter going before the
        channel.
    channels, filters : int
        255 x 9 channels is below 2^30.
    """
    return _Op("convolve_pixels", "int32", channels, filters)(pixels, panels)


def threshold(sums, thresholds, negative):
    """The bits (sums >= thresholds) xor negative, words (..., words(units)).

    Parameters
    ----------
    sums : int32 variable of shape (..., units)
    thresholds : int32 variable of shape (units,)
    negative : uint64 variable of shape (words(units),)
        A bit for each unit that is +1 below its threshold.
    """
    return _Op("threshold", "uint64")(sums, thresholds, negative)


def pool(bits, negative):
    """What `threshold` gives after 2x2 max pooling of the sums, from what it gives before: of each
    four pixels the disjunction or, where `negative`, the conjunction. The borders of odd images are
    ignored.

    Parameters
    ----------
    bits : uint64 variable of shape (batch, rows, columns, words)
    negative : uint64 variable of shape (words,)
    """
    return _Op("pool", "uint64")(bits, negative)


class _Op(COp):
    """The function of xnor.cpp of that name; `inputs` and `units` are values at run time, so that
    all layers share their compiled code."""

    __props__ = ("name", "dtype", "inputs", "units")
    params_type = ParamsType(inputs=int64, units=int64)
    # Types of the inputs and number of dimensions of the output, None: that of the first input.
    SIGNATURES = {
        "pack": (["float32 2"], 2),
        "planes": (["uint8 2"], 3),
        "dot": (["uint64 3", "uint64 3"], 2),
        "convolve": (["uint64 4", "uint64 3"], 4),
        "convolve_pixels": (["uint8 4", "uint64 3"], 4),
        "threshold": (["int32 None", "int32 1", "uint64 1"], None),
        "pool": (["uint64 4", "uint64 1"], 4),
    }

    def __init__(self, name, dtype, inputs=0, units=0):
        self.name = name
        self.dtype = dtype
        self.inputs = inputs
        self.units = units
        super().__init__("xnor/xnor.cpp", f"APPLY_SPECIFIC({name})")

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(x) for x in inputs]
        expected, ndim = self.SIGNATURES[self.name]
        for x, wanted in zip(inputs, expected, strict=True):
            given = f"{x.dtype} {x.ndim}"
            if given != wanted.replace("None", str(x.ndim)):
                raise TypeError(f"xnor.{self.name} takes {', '.join(expected)}; given {given}")
        ndim = inputs[0].ndim if ndim is None else ndim
        return theano.Apply(self, inputs, [T.TensorType(self.dtype, (False,) * ndim)()])
