"""The base of all fused ops, C++ of kernels/ on all threads; and the switch between them and plain
graphs."""

import contextlib
import ctypes
import functools
import hashlib
import os
from pathlib import Path

from original_stack import machine

import theano

KERNELS = Path(__file__).parent / "kernels"


def enabled():
    """Whether graphs that are built or compiled now get the fused ops, which need a compiler."""
    in_python = theano.config.mode == "FAST_COMPILE" or theano.config.linker == "py"
    return (
        os.environ.get("BINARYCONNECT_FUSED") != "0"
        and theano.config.floatX == "float32"
        and not in_python
        and bool(theano.config.cxx)
    )


@contextlib.contextmanager
def disabled():
    """Graphs that are built and compiled within this context are plain."""
    before = os.environ.get("BINARYCONNECT_FUSED")
    os.environ["BINARYCONNECT_FUSED"] = "0"
    try:
        yield
    finally:
        del os.environ["BINARYCONNECT_FUSED"]
        if before is not None:
            os.environ["BINARYCONNECT_FUSED"] = before


def sources():
    """The files of kernels/. Any may include any other: ops are compiled again if one changes."""
    return sorted(KERNELS.rglob("*.cpp")) + sorted(KERNELS.rglob("*.h"))


@functools.cache
def _version():
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()


class Op(theano.Op):
    """A Theano op that calls a C++ function of its inputs, of pointers to its outputs and of the
    fields of its `params_type`.

    Attributes
    ----------
    source, function : str
        A file of kernels/, and the function in it.
    instructions : tuple of str
        What the code needs of the processor, whatever processor THEANO_FLAGS name.
    """

    __props__ = ()
    instructions = ()

    def c_headers(self):
        return ['"runtime.h"', f'"{self.source}"']

    def c_header_dirs(self):
        return [str(KERNELS)]

    def c_compile_args(self):
        # No contraction of a * b + c into one rounding: results do not depend on the processor.
        return ["-fopenmp", "-ffp-contract=off", *(f"-m{name}" for name in self.instructions)]

    def c_init_code(self):
        return ["fused::settle_process();"]

    def c_code_cache_version(self):
        return (_version(),)

    def c_code(self, node, name, inputs, outputs, sub):
        fields = self.params_type.fields if hasattr(self, "params_type") else ()
        parameters = [f"{sub['params']}->{field}" for field in fields]
        arguments = ", ".join([*inputs, *(f"&{output}" for output in outputs), *parameters])
        return f"if (fused::fails([&] {{ {self.function}({arguments}); }})) {{ {sub['fail']} }}"


def check(op, variables, *types):
    """Raises a TypeError unless each variable has its type: "float32 2" has 2 axes, "float32" any
    number."""
    for variable, expected in zip(variables, types, strict=True):
        given = f"{variable.dtype} {variable.ndim}"
        if expected not in (given, variable.dtype):
            raise TypeError(f"{op} takes {', '.join(types)}; given {given}")


def _one_thread():
    """Leaves a child of fork one thread: the threads of OpenMP's pool are its parent's, and the
    child would wait for them for ever."""
    try:
        ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD).omp_set_num_threads(1)
    except OSError:  # no op has run
        return
    machine.load_blas().scipy_openblas_set_num_threads(1)


os.register_at_fork(after_in_child=_one_thread)
