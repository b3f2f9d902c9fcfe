"""The training step's inner loops as Theano ops in C++: vectorized, threaded, one pass each.

Every op has a reference in plain Theano that says what it computes, for NaN and infinities too; it
takes what the reference takes, or `applicable` says that it does not. BINARYCONNECT_FUSED=0 and
:func:`disabled` choose the references. xnor.py, which packed networks run on, is apart: it has
kernels for several processors.

The first op that runs changes its whole process: OpenBLAS runs on OpenMP's threads from then on,
and memory that is freed stays with the process for its next arrays (mallopt's M_MMAP_MAX and
M_TRIM_THRESHOLD), so its size does not shrink. A child of fork after that has one thread.
"""

import original_stack

# Their import registers graph rewrites.
from . import pooling, product, update
from .binarization import PhiloxStream, binarize
from .convolution import conv3x3
from .normalization import batch_norm, moments, normalized_axes, take_over, tracked
from .op import disabled, enabled

__all__ = [
    "PhiloxStream",
    "batch_norm",
    "binarize",
    "conv3x3",
    "disabled",
    "enabled",
    "moments",
    "normalized_axes",
    "pooling",
    "product",
    "take_over",
    "tracked",
    "update",
]
