"""Theano's C++ compiler, for which the headers of Python, NumPy and C++ are parsed once."""

import hashlib
import importlib.machinery
import os
import subprocess
import tempfile
from pathlib import Path

# What the code of each module begins with. To parse it takes longer than to compile what follows in
# most modules.
_HEADERS = """#include <Python.h>
#include <iostream>
#include "theano_mod_helper.h"
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>
#include <algorithm>
#include <vector>
"""
# The flags of our ops (see fused/op.py) that change what the headers define.
_HEADER_FLAGS = ("-fopenmp", "-U_FORTIFY_SOURCE")


class CompilerLoader(importlib.machinery.SourceFileLoader):
    """Gives Theano's compiler precompiled headers, which it reads instead of the headers."""

    def exec_module(self, module):
        super().exec_module(module)
        compile_str = module.GCC_compiler.compile_str

        def compile_with_headers(*args, preargs=(), **kwargs):
            headers = _headers(module, [flag for flag in preargs if flag in _HEADER_FLAGS])
            return compile_str(*args, preargs=[*preargs, "-include", str(headers)], **kwargs)

        module.GCC_compiler.compile_str = staticmethod(compile_with_headers)


def _headers(cmodule, flags):
    """A file of headers, beside which is its form precompiled with Theano's flags and `flags`.

    A compiler that cannot make or use that form reads the file itself. The caller has the lock on
    Theano's compiledir.
    """
    command = [
        cmodule.config.cxx,
        "-O3",
        "-fno-math-errno",
        *cmodule.GCC_compiler.compile_args(),
        *flags,
    ]
    command += ["-fvisibility=hidden", *(f"-I{path}" for path in cmodule.std_include_dirs())]
    key = repr((cmodule.gcc_version(), command, _HEADERS))
    name = f"headers-{hashlib.sha256(key.encode()).hexdigest()[:16]}.h"
    file = Path(cmodule.config.compiledir) / name
    if not file.exists():  # it is written last
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            source, result = Path(folder) / name, Path(folder) / f"{name}.gch"
            source.write_text(_HEADERS)
            if _succeeds(*command, "-x", "c++-header", source, "-o", result) and _succeeds(
                *command, "-include", source, "-fsyntax-only", "-x", "c++", os.devnull
            ):
                with open(result, "rb") as f:
                    os.fsync(f.fileno())  # whole, even after a power cut
                result.replace(file.with_name(result.name))
            source.replace(file)
    return file


def _succeeds(*command):
    return subprocess.run(command, capture_output=True).returncode == 0
