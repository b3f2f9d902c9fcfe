"""What all tests share: the original stack, before anything imports Theano."""

import hashlib
import os
from pathlib import Path

import original_stack
from original_stack.cache import cache_directory
from original_stack.errors import write_atomically

import formats
import numpy as np
import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER:  # compiles in a folder of its own, so that it never waits for another
    os.environ["BINARYCONNECT_CACHE"] = str(cache_directory() / "tests" / WORKER)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=WORKER is not None)
def modules_compiled_once(tmp_path_factory):
    """A worker copies a module that another worker of the same run has compiled. Theano's own
    modules are optimized little: that gives the same results, and compiles in two thirds of the
    time."""
    from theano.gof import cmodule

    compile_str = cmodule.GCC_compiler.compile_str
    shared = tmp_path_factory.getbasetemp().parent  # of all workers

    def compile_or_copy(module_name, src_code, location=None, preargs=(), **options):
        options["preargs"] = [*preargs, *(["-O1"] if '"runtime.h"' not in src_code else [])]
        key = hashlib.sha256(repr((module_name, src_code, options)).encode()).hexdigest()
        module, copy = Path(location) / f"{module_name}.so", shared / f"{key}.so"
        if copy.exists():
            module.write_bytes(copy.read_bytes())
            return cmodule.dlimport(str(module))
        compiled = compile_str(module_name, src_code, location, **options)
        write_atomically(copy, module.read_bytes())
        return compiled

    cmodule.GCC_compiler.compile_str = staticmethod(compile_or_copy)


@pytest.fixture
def golden():
    """A loader of values that the code of 2015-16 computed:
    golden("mlp_det_adam")["init/layer01_W"]."""
    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture
def no_other_data(tmp_path, monkeypatch):
    """Give each test its own cache, hide the user's data, and block the network."""
    from reproduction.datasets import files as data_files

    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / "cache"))
    for variable in ("BINARYCONNECT_DATA", "FUEL_DATA_PATH", "PYLEARN2_DATA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in data_files.MIRRORS:
        monkeypatch.setitem(data_files.MIRRORS, name, ["http://127.0.0.1:9/"])


@pytest.fixture(scope="session")
def svhn(tmp_path_factory):
    """A folder with small files of SVHN, and their content."""
    folder = tmp_path_factory.mktemp("svhn")
    return folder, formats.svhn(folder)


@pytest.fixture
def svhn_copy(svhn, tmp_path):
    """A folder of links to these files, where one test may prepare its own data set."""
    for path in svhn[0].glob("*.mat"):
        os.link(path, tmp_path / path.name)
    return tmp_path


@pytest.fixture(scope="session")
def opencl_device():
    """The first device of OpenCL."""
    from original_stack.errors import UserError

    from reproduction.deploy import opencl

    try:
        opencl.devices()
    except UserError as reason:
        pytest.skip(str(reason))
    return opencl.Device()
