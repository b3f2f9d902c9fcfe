"""Modules and names that later releases dropped, but that Theano 1.0.5, Lasagne 0.1, Fuel 0.2.0 and
pylearn2 need."""

import collections
import collections.abc
import importlib.abc
import importlib.machinery
import importlib.util
import os
from pathlib import Path

from original_stack.compiler import CompilerLoader
from original_stack.errors import reading, say
from original_stack.theano_settings import NO_GPU, CompileLockLoader, TheanoLoader


class FuelLoader(importlib.machinery.SourceFileLoader):
    """Imports Fuel's settings; if Fuel cannot read them, the error names their file."""

    def exec_module(self, module):
        file = os.environ.get("FUEL_CONFIG", "~/.fuelrc")
        with reading(file, "correct it, or ignore it: FUEL_CONFIG=", damage=(Exception,)):
            super().exec_module(module)


_LOADERS = {
    "fuel.config_parser": FuelLoader,
    "theano": TheanoLoader,
    "theano.gof.cmodule": CompilerLoader,
    "theano.gof.compilelock": CompileLockLoader,
}


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that later releases dropped, and prepares what packages need before their
    import."""

    def find_spec(self, name, path=None, target=None):
        if name in _LOADERS:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
                spec.loader = _LOADERS[name](name, spec.loader.path)
            return spec
        if name in _MODULES:
            return importlib.machinery.ModuleSpec(name, self, is_package=name in _PACKAGES)
        if name == "theano.scan_module.scan_perform_ext":
            # It is written for Cython of 2017 and does not compile. Without it, Theano scans in
            # Python.
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in ("fuel", "pylearn2"):  # they import from collections what is in collections.abc
            for abstract in collections.abc.__all__:
                setattr(collections, abstract, getattr(collections.abc, abstract))
        if name in ("binary_connect", "shift_based", "binary_net", "batch_norm"):
            return _own_module(name)
        return None

    def exec_module(self, module):
        vars(module).update(_MODULES[module.__name__]())


def _downsample():
    from theano.tensor.signal.pool import pool_2d

    def max_pool_2d(input, ds, ignore_border=None, st=None, padding=(0, 0), mode="max"):
        return pool_2d(input, ds, ignore_border, st, padding, mode)

    return {"max_pool_2d": max_pool_2d}


def _six():
    import six

    return vars(six) | {"__name__": "theano.compat.six", "__path__": []}


def _six_moves():
    from six import moves

    return {name: getattr(moves, name) for name in ("cPickle", "input", "reduce", "xrange", "zip")}


def _signal(name):
    """The private names of scipy.signal by which Theano convolves if it does not compile."""

    def names():
        module = importlib.import_module(f"scipy.signal._{name}")
        return {key: value for key, value in vars(module).items() if not key.startswith("__")}

    return names


def _cuda():
    def use(device, *_, **__):
        """Stay on the CPU."""
        if device != "cpu":
            say(f"theano.sandbox.cuda.use({device!r}): {NO_GPU}")

    return {"cuda_available": False, "cuda_enabled": False, "use": use}


def _cuda_type():
    class CudaNdarrayType:
        """No variable has this type, because nothing is on a GPU."""

    return {"CudaNdarrayType": CudaNdarrayType}


_MODULES = {
    "scipy.signal.signaltools": _signal("signaltools"),
    "scipy.signal.sigtools": _signal("sigtools"),
    "theano.compat.six": _six,
    "theano.compat.six.moves": _six_moves,
    "theano.sandbox.cuda": _cuda,
    "theano.sandbox.cuda.type": _cuda_type,
    "theano.tensor.signal.downsample": _downsample,
}
_PACKAGES = ("theano.compat.six", "theano.sandbox.cuda")


def _own_module(name):
    """The spec of this project's module, even if a script of 2015-16 has a file of the same name
    beside it, which Python would find first; `say` names that file. A script keeps its own
    batch_norm, because that of 2016 has other layers than that of 2015."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    own = Path(__file__).resolve().parent.parent / f"{name}.py"
    if spec is None or (spec.origin and own.exists() and own.samefile(spec.origin)):
        return spec
    if name == "batch_norm":
        say(f"{spec.origin} is used, not {own}; to use this project's, rename yours")
        return spec
    say(f"{spec.origin} shadows {own}, which is used; to use your own, rename it")
    return importlib.util.spec_from_file_location(name, own)
