"""What the ops of this folder share: C code in a file of kernels/, vectorized and threaded."""

import hashlib
import os

import theano


def enabled():
    """Whether graphs that are built or compiled now get the fused ops, which need a compiler."""
    in_python = theano.config.mode == "FAST_COMPILE" or theano.config.linker == "py"
    return (
        os.environ.get("BINARYCONNECT_FUSED") != "0"
        and theano.config.floatX == "float32"
        and not in_python
        and bool(theano.config.cxx)
    )


class COp(theano.gof.COp):
    """A Theano op whose C code runs on OpenMP's threads, as BLAS does from then on (runtime.h).

    Parameters
    ----------
    file, function : str
        A file of kernels/, and the function in it that computes the outputs; None where the
        class writes its own code.
    """

    def __init__(self, file=None, function=None):
        super().__init__([f"kernels/{name}" for name in ("runtime.h", file) if name], function)

    def c_compile_args(self):
        # No contraction of a * b + c into one rounding: results do not depend on the processor.
        return ["-O3", "-fopenmp", "-ffp-contract=off"]

    def c_headers(self):
        return ["omp.h"]

    def c_code_cache_version(self):
        # Theano's own differs from process to process.
        return (hashlib.sha256("".join(self.func_codes).encode()).hexdigest(),)
