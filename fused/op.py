"""The base class of all fused ops, whose C++ is in kernels/, and the switch to plain graphs."""

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
    """Whether graphs that are built or compiled now use the fused ops, which need a compiler."""
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
    """The files of kernels/. If one changes, all ops are compiled again: files include others."""
    return sorted(KERNELS.rglob("*.cpp")) + sorted(KERNELS.rglob("*.h"))


@functools.cache
def _version():
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()


class Op(theano.Op):
    """A Theano op that calls a C++ function with its inputs, pointers to its outputs, and the
    fields of its `params_type`.

    Attributes
    ----------
    source, function : str
        A file of kernels/, and the function in that file.
    instructions : tuple of str
        The instructions that the code needs, whatever processor THEANO_FLAGS name.
    """

    __props__ = ()
    instructions = ()

    def c_headers(self):
        return ['"runtime.h"', f'"{self.source}"']

    def c_header_dirs(self):
        return [str(KERNELS)]

    def c_compile_args(self):
        # a * b + c is rounded twice, never once, so that results do not depend on the processor.
        # Ubuntu's compiler checks memcpy by an inline function for this processor, which functions
        # for other processors cannot call.
        flags = ["-fopenmp", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
        return [*flags, *(f"-m{name}" for name in self.instructions)]

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
    """Raise a TypeError unless each variable has its type: "float32 2" means 2 axes, "float32" any
    number of axes."""
    for variable, expected in zip(variables, types, strict=True):
        given = f"{variable.dtype} {variable.ndim}"
        if expected not in (given, variable.dtype):
            raise TypeError(f"{op} takes {', '.join(types)}; given {given}")


def _one_thread():
    """Limit a forked child to one thread. The threads of OpenMP's pool stay with the parent, and
    the child would wait for them for ever."""
    try:
        ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD).omp_set_num_threads(1)
    except OSError:  # no op has run yet
        return
    machine.load_blas().scipy_openblas_set_num_threads(1)


os.register_at_fork(after_in_child=_one_thread)
