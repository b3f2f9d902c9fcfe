"""Make the stack of 2015-16 importable on CPython 3.11, and fast.

This package alone knows versions. `import original_stack` settles the environment (threads, BLAS
kernels, Theano's configuration) and puts back the few names that Theano 1.0.5, Lasagne 0.1, Fuel
0.2.0 and pylearn2 expect from older companions. Nothing heavy is imported until Theano itself is.
Settings of the user's own win: THEANO_FLAGS, OPENBLAS_CORETYPE, OMP_NUM_THREADS, OMP_WAIT_POLICY,
GOMP_SPINCOUNT.
"""

import os
import sys
import warnings
from pathlib import Path

from original_stack.cache import cache_directory
from original_stack.machine import blas_kernels, processor
from original_stack.old_names import OldNames

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("BINARYCONNECT_RESULTS") or ROOT / "results")

# BLAS routines that Theano calls; the OpenBLAS of scipy-openblas32 prefixes them with `scipy_`.
_BLAS = [precision + name for precision in "sd" for name in ("gemm", "gemv", "ger", "dot", "axpy")]


def _settle_environment():
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    # Idle threads soon sleep: where they spin for as long as libgomp lets them, training is slower
    # in some processes.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    kernels = blas_kernels(processor())
    if kernels:
        os.environ.setdefault("OPENBLAS_CORETYPE", kernels)
    ours = [
        "floatX=float32",
        "device=cpu",
        # No contraction of a * b + c into one rounding: exported networks give the same bits.
        "gcc.cxxflags=-ffp-contract=off",
        f'"base_compiledir={cache_directory() / "theano"}"',
        # The library is loaded before Theano (see load_blas), so nothing is linked: no path gets
        # into the compiled code, and one with a space does no harm.
        '"blas.ldflags=' + " ".join(["-lm"] + [f"-D{name}_=scipy_{name}_" for name in _BLAS]) + '"',
    ]
    flags = os.environ.get("THEANO_FLAGS", "")
    if ours[-1] not in flags:
        os.environ["THEANO_FLAGS"] = ",".join(ours + ([flags] if flags else []))
    # What this stack says of its own age is no news to a user; warnings about data or results stay.
    for module in ("theano", "lasagne", "fuel", "picklable_itertools", "pylearn2"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    warnings.filterwarnings("ignore", message="The `image_shape` keyword argument")


if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
    _settle_environment()
    sys.meta_path.insert(0, OldNames())
