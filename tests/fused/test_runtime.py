"""The fused ops let BLAS run on OpenMP's threads in the whole process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fused

CODE = """
import original_stack, numpy as np, theano, theano.tensor as T, fused
x = np.random.RandomState(0).normal(size=(600, 500)).astype("float32")
W = theano.shared(np.ones((500, 500), "float32"))
X = T.matrix()
train = theano.function([X], updates=[(W, W - T.dot(X.T, X))])
train(x)
train(x)
print(abs(W.get_value() - 1 + 2 * (x.T.astype("float64") @ x)).max())
"""


@pytest.mark.parametrize(
    "limits",
    [{}, {"OMP_THREAD_LIMIT": "1"}, {"OMP_THREAD_LIMIT": "2"}, {"OMP_DYNAMIC": "true"}],
    ids=str,
)
def test_products_whatever_number_of_threads_openmp_gives(limits):
    """The jobs of a product wait for each other, so a product would hang with too few threads."""
    path = str(Path(fused.__file__).parent.parent)
    threads = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    environment = {**os.environ, "PYTHONPATH": path, **threads, **limits}
    python = [sys.executable, "-c", CODE]
    output = subprocess.run(
        python, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert float(output) < 1e-2
