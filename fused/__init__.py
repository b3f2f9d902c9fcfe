"""The training step's inner loops as Theano ops in C: vectorized, threaded, one pass each.

Every op has a twin in plain Theano that says what it computes; BINARYCONNECT_FUSED=0 chooses the
twins. xnor.py, which packed networks run on, is apart: it has kernels for several processors.
"""

import original_stack

# Their import registers graph rewrites.
from . import pooling, product, update
from .binarization import PhiloxStream, binarize
from .convolution import conv3x3
from .normalization import batch_norm, moments, normalized_axes, supports, take_over, tracked
from .op import enabled

__all__ = [
    "PhiloxStream",
    "batch_norm",
    "binarize",
    "conv3x3",
    "enabled",
    "moments",
    "normalized_axes",
    "pooling",
    "product",
    "supports",
    "take_over",
    "tracked",
    "update",
]
