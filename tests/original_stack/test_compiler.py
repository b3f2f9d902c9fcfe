import pytest
from checks import python

FUNCTION = """
import original_stack, theano, theano.tensor as T
x = T.scalar()
print(theano.function([x], x + 41)(1))
"""


def headers(cache):
    (compiled,) = cache.glob("theano-*/compiledir_*")
    return sorted(path.name.partition("-")[0] + path.suffix for path in compiled.glob("headers-*"))


def test_reads_precompiled_headers(tmp_path):
    done = python("-c", FUNCTION, BINARYCONNECT_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "42.0\n")
    assert headers(tmp_path) == ["headers.gch", "headers.h"]
    (file,) = tmp_path.glob("theano-*/compiledir_*/headers-*.h")
    file.write_text("#error the headers are read again")
    done = python("-c", FUNCTION.replace("+", "*"), BINARYCONNECT_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "41.0\n")


@pytest.mark.parametrize("refused", ["c++-header", "-fsyntax-only"])
def test_compiles_without_precompiled_headers(refused, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text(
        f'#!/bin/sh\ncase " $* " in *" {refused} "*) exit 1;; esac\nexec g++ "$@"\n'
    )
    compiler.chmod(0o755)
    cache = tmp_path / "cache"
    done = python("-c", FUNCTION, BINARYCONNECT_CACHE=str(cache), THEANO_FLAGS=f"cxx={compiler}")
    assert (done.returncode, done.stdout) == (0, "42.0\n")
    assert headers(cache) == ["headers.h"]
