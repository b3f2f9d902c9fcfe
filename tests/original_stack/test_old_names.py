"""Modules of 2015 that later releases dropped."""

from original_stack import ROOT

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import python


def test_versions():
    import fuel.datasets
    import lasagne

    assert theano.__version__ == "1.0.5"
    assert lasagne.__version__ == "0.1"
    assert fuel.__version__ == "0.2.0"


def test_downsample():
    from theano.tensor.signal import downsample

    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    pooled = downsample.max_pool_2d(T.constant(x), (2, 2), ignore_border=True)
    assert pooled.eval().tolist() == [[[[5, 7], [13, 15]]]]


# What pylearn2 and its data sets import of Theano and of Python's older libraries, and what its
# setup.py imports.
PYLEARN2 = {
    "__init__.py": "from theano.compat.six.moves import zip as izip, input\n",
    "space.py": (
        "from collections import Iterable, Sized\n"
        "import theano.sandbox.cuda\n"
        "from theano.sandbox.cuda.type import CudaNdarrayType\n"
        "from theano.compat import OrderedDict, six\n"
        "from theano.compat.six.moves import xrange, reduce, cPickle\n"
        "from theano.compat.six import string_types\n"
        "import theano.tensor as T\n"
        "assert not isinstance(T.matrix().type, CudaNdarrayType)\n"
        "assert theano.sandbox.cuda.cuda_available is False\n"
    ),
    "datasets.py": (
        "from theano.sandbox.cuda import cuda_enabled\n"
        "from pylearn2.space import six\n"
        "class MNIST:\n"
        "    rows = list(six.moves.zip(range(2), 'ab'))\n"
    ),
}


@pytest.fixture
def pylearn2(tmp_path):
    """A folder with a package that imports what pylearn2 imports."""
    package = tmp_path / "packages" / "pylearn2"
    package.mkdir(parents=True)
    for name, text in PYLEARN2.items():
        (package / name).write_text(text)
    return package.parent


def test_names_that_pylearn2_needs(pylearn2):
    code = "from pylearn2.datasets import MNIST; print(MNIST.rows)"
    done = python("-c", code, PYTHONPATH=f"{ROOT}:{ROOT}/original_stack/site:{pylearn2}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(0, 'a'), (1, 'b')]\n", "")


def test_names_that_the_setup_of_pylearn2_needs():
    done = python("-c", "from theano.compat.six.moves import input; import numpy; print(input())")
    assert done.stderr.endswith("EOFError: EOF when reading a line\n")


def test_a_gpu_of_2015_is_not_used():
    code = (
        "import theano.sandbox.cuda\n"
        "theano.sandbox.cuda.use('gpu0')\n"
        "theano.sandbox.cuda.use('gpu', force=True)\n"
        "theano.sandbox.cuda.use('cpu')\n"
        "print(theano.config.device)\n"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "cpu\n",
        "-c: theano.sandbox.cuda.use('gpu0'): this stack has no GPU back-end; continuing on the "
        "CPU\n"
        "-c: theano.sandbox.cuda.use('gpu'): this stack has no GPU back-end; continuing on the "
        "CPU\n",
    )


def test_settings_of_fuel_that_cannot_be_read(tmp_path):
    settings = tmp_path / "fuelrc"
    settings.write_text("data_path: [a")
    done = python("-c", "import fuel.config_parser", FUEL_CONFIG=str(settings))
    assert done.stderr.endswith(
        f"UserError: {settings} is damaged (while parsing a flow sequence); correct it, or "
        "ignore it: FUEL_CONFIG=\n"
    )


def test_convolution_without_compilation():
    images, filters = np.float32([[[[1, 2], [3, 4]]]]), np.float32([[[[10, 1]]]])
    convolution = T.nnet.conv2d(T.constant(images), T.constant(filters))
    python_only = theano.Mode(linker="py", optimizer=None)
    assert theano.function([], convolution, mode=python_only)().tolist() == [[[[21], [43]]]]


def test_scan():
    A, k = T.vector(), T.iscalar()
    powers, updates = theano.scan(
        lambda power, A: power * A, outputs_info=T.ones_like(A), non_sequences=A, n_steps=k
    )
    f = theano.function([A, k], powers[-1], updates=updates)
    assert f(np.arange(5, dtype=np.float32), 3).tolist() == [0, 1, 8, 27, 64]


def test_a_recurrent_layer():
    import lasagne

    one = lasagne.init.Constant(1)
    layer = lasagne.layers.RecurrentLayer(
        lasagne.layers.InputLayer((1, 3, 1)),
        1,
        W_in_to_hid=one,
        W_hid_to_hid=one,
        nonlinearity=lasagne.nonlinearities.rectify,
    )
    x = T.tensor3()
    outputs = theano.function([x], lasagne.layers.get_output(layer, x))
    assert outputs(np.float32([[[1], [2], [3]]])).ravel().tolist() == [1, 3, 6]


@pytest.mark.slow
def test_script_of_2015_runs_unchanged_and_without_a_warning():
    done = python(ROOT / "tests" / "script_of_2015.py")
    assert (done.returncode, done.stderr) == (0, "")
    errors = [
        float(line.split()[-1][:-1])
        for line in done.stdout.splitlines()
        if line.startswith("  validation error rate:")
    ]
    assert len(errors) == 10
    assert errors[-1] < 25 < errors[0]
