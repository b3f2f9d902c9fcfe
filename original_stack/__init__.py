"""Make the stack of 2015-16 importable on CPython 3.11, and fast.

Only this package knows about versions. `import original_stack` settles the environment (threads,
BLAS kernels), prepares Theano's configuration, and offers the few names that Theano 1.0.5, Lasagne
0.1, Fuel 0.2.0 and pylearn2 expect from older versions of other packages. It imports nothing heavy.
These settings of the user win: THEANO_FLAGS, OPENBLAS_CORETYPE, OMP_NUM_THREADS, OMP_WAIT_POLICY,
GOMP_SPINCOUNT.
"""

import os
import sys
import warnings
from pathlib import Path

from original_stack import ctrl_c  # first, because the other imports take time
from original_stack.machine import blas_kernels, processor, processors
from original_stack.old_names import OldNames

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.path.expanduser(os.environ.get("BINARYCONNECT_RESULTS") or ROOT / "results"))


def _settle_environment():
    _open_streams()
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]  # Python then takes the home of the user's account
    if os.path.expanduser("~") == "~":  # an unknown user without HOME, as in containers
        os.environ["HOME"] = os.devnull  # has nothing to read and cannot be written
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(processors())
    # Let idle threads sleep soon: libgomp's default lets them spin longer, which makes training
    # slower in some processes.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # HDF5 does not open files on a file system without locks. Data files have this project's locks.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    kernels = blas_kernels(processor())
    if kernels:
        os.environ.setdefault("OPENBLAS_CORETYPE", kernels)
    # Silence deprecation warnings from the old stack; warnings about data or results stay.
    for module in ("theano", "lasagne", "fuel", "picklable_itertools", "pylearn2"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*\bpylearn2\b")
    warnings.filterwarnings("ignore", message="The `image_shape` keyword argument")


def _open_streams():
    """Open streams that were closed when the process started (`>&-`), so that the next files that
    are opened do not take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # `open` takes the lowest free number, which is the number of this stream.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r"))


if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
    _settle_environment()
    sys.meta_path.insert(0, OldNames())
