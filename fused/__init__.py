"""The inner loops of a training step as Theano ops in C++: vectorized, threaded, in one pass each.

Every op has a reference in plain Theano, which defines its result, also for NaN and infinities
unless the op's docstring says otherwise. An op takes all inputs of its reference unless
`applicable` says that it does not.
BINARYCONNECT_FUSED=0 and :func:`disabled` choose the references. xnor.py serves packed networks
instead of training, and has kernels for several processors.

The first op that runs changes its whole process: OpenBLAS then runs on OpenMP's threads, and freed
memory stays with the process for its next arrays (mallopt's M_MMAP_MAX and M_TRIM_THRESHOLD), so
the process does not shrink. A child that is forked later has one thread.
"""

import original_stack

# Importing these modules registers graph rewrites.
from . import gradient, pooling, product, sums, update
from .binarization import PhiloxStream, binarize
from .convolution import conv3x3
from .normalization import (
    batch_norm,
    moments,
    normalized_axes,
    shift_batch_norm,
    take_over,
    tracked,
)
from .op import KERNELS, disabled, enabled

__all__ = [
    "KERNELS",
    "PhiloxStream",
    "batch_norm",
    "binarize",
    "conv3x3",
    "disabled",
    "enabled",
    "gradient",
    "moments",
    "normalized_axes",
    "pooling",
    "product",
    "shift_batch_norm",
    "sums",
    "take_over",
    "tracked",
    "update",
]
