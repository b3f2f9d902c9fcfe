"""The machine: its processor and instructions, the number of threads, and BLAS."""

import ctypes
import importlib.util
import math
import os
import re
from pathlib import Path, PurePosixPath

from original_stack.errors import UserError

MOST_THREADS = 4096


def processor():
    """What Linux says about the first processor: {field: text}, with "model name" and "flags"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    return {name.strip(): text.strip() for name, _, text in fields}


def has(*instructions):
    """Whether the processor has all of these instructions, named as Linux does: "avx512f"."""
    return set(instructions) <= set(processor().get("flags", "").split())


def processors():
    """Number of processors that this process may use.

    Its affinity and its control groups (`docker run --cpus`) limit it; a fraction is rounded up.
    """
    return max(1, min(len(os.sched_getaffinity(0)), quota()))


def quota(groups="/proc/self/cgroup", mounted="/sys/fs/cgroup"):
    """Number of processors whose time the control groups grant to this process, rounded up.

    Parameters
    ----------
    groups : path
        The file that lists the groups.
    mounted : path
        The folder that has the files of both versions of control groups.

    Returns
    -------
    int or float
        Infinity if there is no limit.
    """
    try:
        lines = Path(groups).read_text().splitlines()
    except OSError:
        return math.inf
    shares = [math.inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container sees its own group at the root, whatever name the host gives to the group.
        for path in (PurePosixPath(group), *PurePosixPath(group).parents):
            folder = Path(mounted, "cpu" if controllers else "", *path.parts[1:])
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            try:
                time, period = " ".join((folder / name).read_text() for name in files).split()
                if time not in ("max", "-1"):
                    shares.append(math.ceil(int(time) / int(period)))
            except (OSError, ValueError):
                continue
    return min(shares)


def threads():
    """Number of threads that BLAS and the compiled code use.

    Raises
    ------
    UserError
        If OMP_NUM_THREADS is not a number of threads.
    """
    chosen = os.environ["OMP_NUM_THREADS"]
    number = chosen.partition(",")[0].strip()
    if not (re.fullmatch("0*[0-9]{1,4}", number) and 1 <= int(number) <= MOST_THREADS):
        raise UserError(
            f"OMP_NUM_THREADS is {chosen!r}; expected a number of threads, 1 to {MOST_THREADS}"
        )
    return int(number)


def blas_kernels(processor):
    """The value of OPENBLAS_CORETYPE for a processor, or None if OpenBLAS itself chooses well.

    OpenBLAS may not know AMD processors that are newer than itself. Processors of family 25 (Zen 4)
    execute AVX-512 in halves; AVX2 kernels are 4 to 17 % faster there, depending on the size of the
    products of training. On later processors, AVX2 kernels have half the speed.
    """
    maker, flags = processor.get("vendor_id"), processor.get("flags", "").split()
    if maker != "AuthenticAMD" or not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return None
    return "ZEN" if processor["cpu family"] == "25" else "SKYLAKEX"


_blas_library = None


def load_blas():
    """OpenBLAS as a ctypes library. Libraries that are loaded later see its symbols."""
    global _blas_library
    if _blas_library is None:
        package = importlib.util.find_spec("scipy_openblas32").submodule_search_locations[0]
        _blas_library = ctypes.CDLL(
            os.path.join(package, "lib", "libscipy_openblas.so"), mode=ctypes.RTLD_GLOBAL
        )
    return _blas_library


def blas():
    """OpenBLAS's version and its kernels for this processor: "OpenBLAS 0.3.34 SkylakeX"."""
    library = load_blas()
    library.scipy_openblas_get_config.restype = ctypes.c_char_p
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    version = " ".join(library.scipy_openblas_get_config().decode().split()[:2])
    return f"{version} {library.scipy_openblas_get_corename().decode()}"
