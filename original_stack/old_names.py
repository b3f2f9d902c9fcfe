"""The modules and names that later releases dropped, for Theano 1.0.5, Lasagne 0.1, Fuel 0.2.0 and
pylearn2."""

import collections
import collections.abc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from original_stack.cache import check_cache
from original_stack.errors import UserError
from original_stack.machine import load_blas, threads


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
        elif name in ("binary_connect", "shift_based", "binary_net"):
            return _ours(name)
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


def _ours(name):
    """Finds this project's module where Python would find another file of the same name first, as
    a script of 2015-16 may have beside it; says so."""
    found = importlib.machinery.PathFinder.find_spec(name)
    ours = Path(__file__).resolve().parent.parent / f"{name}.py"
    if found is None or (found.origin and ours.exists() and ours.samefile(found.origin)):
        return found
    print(
        f"{Path(sys.argv[0]).name}: {found.origin} shadows {ours}, which is used; to use your own, "
        "rename it",
        file=sys.stderr,
    )
    return importlib.util.spec_from_file_location(name, ours)
