"""Theano's configuration and its compile lock, which are set when Theano is imported."""

import configparser
import importlib.machinery
import importlib.util
import os
import re
import shlex
import sys
import time

from original_stack import cache, lock, machine
from original_stack.errors import Lock, UserError, expanded, no_room, say

# BLAS routines that Theano calls; the OpenBLAS of scipy-openblas32 prefixes them with `scipy_`.
_BLAS = [precision + name for precision in "sd" for name in ("gemm", "gemv", "ger", "dot", "axpy")]
NO_GPU = "this stack has no GPU back-end; continuing on the CPU"
_PATIENCE = 5  # seconds to wait for another process before saying so


class TheanoLoader(importlib.machinery.SourceFileLoader):
    """Imports Theano with this project's flags and then the user's flags, which win.

    The user's flags are read when Theano is imported, so flags that a script sets before count too.
    """

    def exec_module(self, module):
        users = os.environ.get("THEANO_FLAGS")
        try:
            if sys.flags.optimize > 1:
                raise UserError("Theano needs docstrings; leave out -OO or PYTHONOPTIMIZE=2")
            # Theano refuses a list, whose other numbers are for nested threads.
            os.environ["OMP_NUM_THREADS"] = str(machine.threads())
            lock.check("numpy", "scipy", "six", "theano", "lasagne")
            os.environ["THEANO_FLAGS"] = merged_flags(users or "")
            machine.load_blas()
            super().exec_module(module)
        except UserError as error:
            _end(error)
        except Exception as error:
            if no_room(error):
                _end(cache.full_disk())
            if isinstance(error, ValueError) and re.search(
                "configuration var|compiledir", str(error)
            ):
                _end(f"{error.args[0]}; change it in THEANO_FLAGS or ~/.theanorc")
            raise
        finally:
            # Programs that are started from here merge their flags themselves.
            if users is None:
                os.environ.pop("THEANO_FLAGS", None)
            else:
                os.environ["THEANO_FLAGS"] = users


def _end(reason):
    say(reason)
    sys.exit(2)


def merged_flags(users):
    """The flags of this project, followed by the flags of the user.

    Parameters
    ----------
    users : str
        The user's THEANO_FLAGS.

    Returns
    -------
    str

    Raises
    ------
    UserError
        If the user's flags cannot be read, or if Theano could not compile into the cache.
    """
    flags = [
        "floatX=float32",
        "device=cpu",
        # a * b + c is rounded twice, never once, so that exported networks give the same bits.
        # Without information for debuggers, a module compiles in two thirds of the time.
        "gcc.cxxflags=-ffp-contract=off -g0",
        # The library is loaded before Theano (see load_blas), so nothing is linked. No path gets
        # into the compiled code, and a path with a space does no harm.
        _quoted("blas.ldflags", " ".join(["-lm", *(f"-D{name}_=scipy_{name}_" for name in _BLAS)])),
    ]
    if not re.search(r"\b(base_)?compiledir *=", users):
        cache.check_cache()
        flags.append(_quoted("base_compiledir", str(cache.compile_directory())))
    flags += [users] if users else []
    device, source = _device(users)
    without = device.startswith("gpu") or importlib.util.find_spec("pygpu") is None
    if device != "cpu" and (without or source != "THEANO_FLAGS"):
        say(f"device={device} in {source}: {NO_GPU}")
        flags.append("device=cpu")
    return ",".join(flags)


def _quoted(name, value):
    """A flag whose value may have a space, a comma or a quote."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={value}"'


def _device(users):
    """The device that the user names, and where: THEANO_FLAGS, otherwise ~/.theanorc."""
    flags = shlex.shlex(users, posix=True)
    flags.whitespace, flags.whitespace_split = ",", True
    try:
        given = dict(flag.strip().split("=", 1) for flag in flags if "=" in flag)
    except ValueError as error:
        raise UserError(
            f"THEANO_FLAGS is {users!r} ({error}); expected name=value,name=value"
        ) from None
    if "device" in given:
        return given["device"], "THEANO_FLAGS"
    files = os.environ.get("THEANORC", "~/.theanorc")
    settings = configparser.RawConfigParser()
    try:
        settings.read(os.path.expanduser(path) for path in files.split(os.pathsep))
    except (configparser.Error, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(
            f"cannot read Theano's settings ({reason}); correct them, or ignore them: THEANORC="
        ) from None
    return settings.get("global", "device", fallback="cpu"), files


class CompileLockLoader(importlib.machinery.SourceFileLoader):
    """Gives Theano a lock on its compile directory that the kernel releases when its holder ends.

    Theano's own lock is a folder that names a host and a process. After a kill in a container, the
    next process would wait for minutes.
    """

    def exec_module(self, module):
        super().exec_module(module)
        held = None

        def acquire(folder, *_, **__):
            nonlocal held
            held = _locked(os.path.dirname(folder))

        class Unlocker:
            def __init__(self, folder):
                pass

            def unlock(self, force=False):
                if held is not None:
                    held.release()

        module.lock, module.Unlocker = acquire, Unlocker
        module.refresh_lock = lambda path: None
        cache.remove_damaged(module.config.compiledir, module.lock_ctx)


def _locked(directory):
    """Take the lock on a compile directory, and return it."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "lock")
    if not os.path.exists(path):
        say("compiling, about a minute, once")
    started = time.monotonic()
    while time.monotonic() - started < _PATIENCE:
        try:
            return Lock(path)
        except BlockingIOError:
            time.sleep(0.1)
    return Lock(path, waiting="waiting for another process, which compiles")
