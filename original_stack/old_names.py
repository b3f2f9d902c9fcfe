"""The modules and names that later releases dropped, for Theano 1.0.5, Lasagne 0.1, Fuel 0.2.0 and
pylearn2."""

import collections
import collections.abc
import importlib.abc
import importlib.machinery
import sys
from pathlib import Path

from original_stack.cache import check_cache
from original_stack.errors import UserError
from original_stack.machine import load_blas, threads


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


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
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
