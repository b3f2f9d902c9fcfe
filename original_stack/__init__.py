"""Make the stack of 2015-16 importable on CPython 3.11, and fast.

This package alone knows versions. `import original_stack` settles the environment (threads, BLAS
kernels) and prepares the import of Theano (its configuration) and of the few names that Theano
1.0.5, Lasagne 0.1, Fuel 0.2.0 and pylearn2 expect from older companions. Nothing heavy is imported
until Theano itself is. Settings of the user's own win: THEANO_FLAGS, OPENBLAS_CORETYPE,
OMP_NUM_THREADS, OMP_WAIT_POLICY, GOMP_SPINCOUNT.
"""

import os
import sys
import warnings
from pathlib import Path

from original_stack import ctrl_c  # first: the others take time
from original_stack.machine import blas_kernels, processor, processors
from original_stack.old_names import OldNames

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.path.expanduser(os.environ.get("BINARYCONNECT_RESULTS") or ROOT / "results"))


def _settle_environment():
    _open_streams()
    if os.path.expanduser("~") == "~":  # an unknown user without HOME, as in containers
        os.environ["HOME"] = os.devnull  # nothing is there to be read, nothing can be written
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(processors())
    # Idle threads soon sleep: where they spin for as long as libgomp lets them, training is slower
    # in some processes.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # HDF5 refuses to open files where the file system has no locks; the data files have ours.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    kernels = blas_kernels(processor())
    if kernels:
        os.environ.setdefault("OPENBLAS_CORETYPE", kernels)
    # What this stack says of its own age is no news to a user; warnings about data or results stay.
    for module in ("theano", "lasagne", "fuel", "picklable_itertools", "pylearn2"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*\bpylearn2\b")
    warnings.filterwarnings("ignore", message="The `image_shape` keyword argument")


def _open_streams():
    """Give a process that was started with closed streams (`>&-`) ones that nobody reads; the next
    files that it opens would take their place otherwise."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Of all free numbers open takes the lowest, so that this is the stream's own.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r"))


if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
    _settle_environment()
    sys.meta_path.insert(0, OldNames())
