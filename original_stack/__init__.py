"""Make the stack of 2015-16 importable on CPython 3.11, and fast.

This is the only file that knows versions. `import original_stack` settles the environment (threads,
BLAS kernels, Theano's configuration) and puts back the few names that Theano 1.0.5, Lasagne 0.1,
Fuel 0.2.0 and pylearn2 expect from older companions. Nothing heavy is imported until Theano itself
is. Settings of the user's own win: THEANO_FLAGS, OPENBLAS_CORETYPE, OMP_NUM_THREADS,
OMP_WAIT_POLICY, GOMP_SPINCOUNT.
"""

import collections
import collections.abc
import ctypes
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from original_stack.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
RESULTS = Path(os.environ.get("BINARYCONNECT_RESULTS") or ROOT / "results")

# BLAS routines that Theano calls; the OpenBLAS of scipy-openblas32 prefixes them with `scipy_`.
_BLAS = [precision + name for precision in "sd" for name in ("gemm", "gemv", "ger", "dot", "axpy")]


def cache_directory():
    """The per-user directory of compiled code and data: BINARYCONNECT_CACHE, else
    XDG_CACHE_HOME/binaryconnect, else ~/.cache/binaryconnect, else (where that cannot be written,
    as for a user without a home) one of the user's own in the directory for temporary files."""
    chosen = os.environ.get("BINARYCONNECT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(chosen) if chosen else Path(home) / "binaryconnect"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    path = Path(tempfile.gettempdir()) / f"binaryconnect-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def full_disk():
    """The UserError of a disk too full for Theano's compiler."""
    return UserError(
        f"cannot compile into {cache_directory() / 'theano'}: the disk is full, there or where "
        "temporary files go; free some space, or name other directories: BINARYCONNECT_CACHE=DIR "
        "TMPDIR=DIR"
    )


def check_cache():
    """Raises a UserError where Theano could not compile into the cache."""
    # Where the user's own THEANO_FLAGS name a directory, the cache is not compiled into.
    if os.environ["THEANO_FLAGS"].count("compiledir=") > 1:
        return
    if os.statvfs(cache_directory()).f_flag & os.ST_NOEXEC:
        raise UserError(
            f"cannot compile into {cache_directory() / 'theano'}: its file system is mounted "
            "noexec; name another directory: BINARYCONNECT_CACHE=DIR"
        )
    # Where Theano cannot write its own lock it would wait for that, many minutes.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    for directory in (cache_directory(), temporary):
        if directory.is_dir() and shutil.disk_usage(directory).free < 2**20:
            raise full_disk()


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


def blas():
    """OpenBLAS's version and the kernels it uses on this processor: "OpenBLAS 0.3.34 SkylakeX"."""
    library = load_blas()
    library.scipy_openblas_get_config.restype = ctypes.c_char_p
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    version = " ".join(library.scipy_openblas_get_config().decode().split()[:2])
    return f"{version} {library.scipy_openblas_get_corename().decode()}"


def locked_versions(lock=LOCK):
    """{package: version} of the lock."""
    return dict(
        re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", Path(lock).read_text(), flags=re.MULTILINE)
    )


def unsatisfied(lock=LOCK):
    """Packages of the lock that this environment lacks or has in another version."""

    def installed(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return [f"{name}=={v}" for name, v in locked_versions(lock).items() if installed(name) != v]


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


def processor():
    """What Linux says of the first processor, {field: text}: "model name", "flags" and others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    return {name.strip(): text.strip() for name, _, text in fields}


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


class _LasagneLayers(importlib.machinery.SourceFileLoader):
    """Gives `lasagne.layers` the batch normalization of Lasagne 0.2, which scripts of 2016 use."""

    def exec_module(self, module):
        super().exec_module(module)

        def missing(name):  # asked for names that the module lacks
            if name != "BatchNormLayer":
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            from batch_norm import LasagneBatchNormLayer

            return LasagneBatchNormLayer

        module.__getattr__ = missing


class _OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves modules that later releases dropped; prepares a package's needs before its import."""

    def find_spec(self, name, path=None, target=None):
        if name == "theano":
            try:
                threads()
                check_cache()
            except UserError as error:
                print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
                sys.exit(2)
            load_blas()
        elif name in ("fuel", "pylearn2"):  # import from collections what is in collections.abc
            for abstract in ("Iterable", "Iterator", "Mapping", "Sequence"):
                setattr(collections, abstract, getattr(collections.abc, abstract))
        elif name in ("theano.tensor.signal.downsample", "theano.sandbox.cuda"):
            return importlib.machinery.ModuleSpec(name, self)
        elif name == "lasagne.layers":
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = _LasagneLayers(spec.loader.name, spec.loader.path)
            return spec
        if name == "pylearn2":  # takes six from within Theano
            import six

            sys.modules.update({"theano.compat.six": six, "theano.compat.six.moves": six.moves})
        return None

    def exec_module(self, module):
        if module.__name__ == "theano.tensor.signal.downsample":
            from theano.tensor.signal.pool import pool_2d

            def max_pool_2d(input, ds, ignore_border=None, st=None, padding=(0, 0), mode="max"):
                return pool_2d(input, ds, ignore_border, st, padding, mode)

            module.max_pool_2d = max_pool_2d
        elif module.__name__ == "theano.sandbox.cuda":
            module.cuda_available = module.cuda_enabled = False


if not any(type(finder).__name__ == "_OldNames" for finder in sys.meta_path):
    _settle_environment()
    sys.meta_path.insert(0, _OldNames())

if __name__ == "__main__":  # for `reproduce`: does this environment satisfy the lock?
    sys.exit(1 if unsatisfied() else 0)
