"""What the machine has: its processor, its instructions, threads, and the BLAS that uses them."""

import ctypes
import importlib.util
import os
import re
from pathlib import Path

from original_stack.errors import UserError


def processor():
    """What Linux says of the first processor, {field: text}: "model name", "flags" and others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    return {name.strip(): text.strip() for name, _, text in fields}


def has(*instructions):
    """Whether the processor has all of these instructions, by Linux's names: "avx512f"."""
    return set(instructions) <= set(processor().get("flags", "").split())


def threads():
    """Number of threads that BLAS and the compiled code use.

    Raises
    ------
    UserError
        If OMP_NUM_THREADS is not a number of threads.
    """
    chosen = os.environ["OMP_NUM_THREADS"]
    if not re.fullmatch(r"\s*0*[1-9]\d*\s*(,.*)?", chosen):
        raise UserError(f"OMP_NUM_THREADS is {chosen!r}; expected a number of threads")
    return int(chosen.split(",")[0])


def blas_kernels(processor):
    """The value of OPENBLAS_CORETYPE for a processor, or None where OpenBLAS chooses well.

    OpenBLAS goes by the instruction set, and may not know AMD processors newer than itself. Those
    of family 25 (Zen 4) execute AVX-512 in halves: there AVX2 kernels are 4 to 17 % faster on the
    products of training, by their size. On later ones they have half the speed.
    """
    maker, flags = processor.get("vendor_id"), processor.get("flags", "").split()
    if maker != "AuthenticAMD" or not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return None
    return "ZEN" if processor["cpu family"] == "25" else "SKYLAKEX"


_blas_library = None


def load_blas():
    """OpenBLAS as a ctypes library, its symbols visible to all that is loaded after it."""
    global _blas_library
    if _blas_library is None:
        package = importlib.util.find_spec("scipy_openblas32").submodule_search_locations[0]
        _blas_library = ctypes.CDLL(
            os.path.join(package, "lib", "libscipy_openblas.so"), mode=ctypes.RTLD_GLOBAL
        )
    return _blas_library


def blas():
    """OpenBLAS's version and the kernels it uses on this processor: "OpenBLAS 0.3.34 SkylakeX"."""
    library = load_blas()
    library.scipy_openblas_get_config.restype = ctypes.c_char_p
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    version = " ".join(library.scipy_openblas_get_config().decode().split()[:2])
    return f"{version} {library.scipy_openblas_get_corename().decode()}"
