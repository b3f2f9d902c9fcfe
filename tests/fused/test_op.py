"""What all fused ops share: the switch, the cache of compiled code, and forked children."""

import multiprocessing
import os
import shutil

import original_stack

import numpy as np
import pytest
import theano
import theano.tensor as T

import binary_connect
import fused
from fused.binarization import Binarize


def test_disabled(monkeypatch):
    monkeypatch.delenv("BINARYCONNECT_FUSED", raising=False)
    W = theano.shared(np.ones((2, 3), "float32"))
    assert fused.enabled()
    with fused.disabled():
        assert not fused.enabled()
        assert not isinstance(binary_connect.binarization(W, np.float32(1)).owner.op, Binarize)
    with pytest.raises(KeyError), fused.disabled():
        raise KeyError
    assert fused.enabled()
    assert "BINARYCONNECT_FUSED" not in os.environ
    monkeypatch.setenv("BINARYCONNECT_FUSED", "0")
    with fused.disabled():
        assert not fused.enabled()
    assert os.environ["BINARYCONNECT_FUSED"] == "0"


def test_cache_version_depends_on_all_sources(tmp_path, monkeypatch):
    """It is a hash of the bytes of all files, because files include others."""
    files = {path.name for path in fused.op.sources()}
    included = {"common.h", "images.h", "signed_sums.h", "winograd.h", "counts.h", "runtime.h"}
    assert included | {"convolution.cpp", "dot.cpp", "update.h"} <= files
    versions = {op.c_code_cache_version() for op in (Binarize(True), fused.pooling.MaxPool())}
    assert versions == {(fused.op._version.__wrapped__(),)}
    copy = shutil.copytree(fused.op.KERNELS, tmp_path / "kernels")
    monkeypatch.setattr(fused.op, "KERNELS", copy)
    assert versions == {(fused.op._version.__wrapped__(),)}
    with open(copy / "images.h", "a") as f:
        f.write("//")
    assert versions != {(fused.op._version.__wrapped__(),)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_fork_runs_ops_and_products():
    """The threads of OpenMP's pool stay with the parent, so a child would wait for them."""
    x = np.random.RandomState(0).normal(size=(600, 500)).astype("float32")
    W = theano.shared(x[:500])
    X = T.matrix()
    function = theano.function([X], [T.dot(X, W), fused.binarize(W, 1.0), T.dot(X.T, X)])
    expected = function(x)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(
        target=lambda: results.put(
            [
                np.array_equal(a, b) or abs(a - b).max() < 1e-3
                for a, b in zip(function(x), expected, strict=True)
            ]
        )
    )
    child.start()
    try:
        assert results.get(timeout=60) == [True] * 3
    finally:
        child.kill()
        child.join()
    assert function(x)[0].shape == (600, 500)
