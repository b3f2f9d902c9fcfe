"""Products with binarized weights against products by BLAS and in double precision."""

import os
import subprocess
import sys

import original_stack
from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near

import binary_connect
from fused.binarization import Binarize, PhiloxStream
from fused.product import INSTRUCTIONS, BinaryProduct, PackSigns

pytestmark = pytest.mark.skipif(
    not machine.has(*INSTRUCTIONS), reason="this processor has no AVX-512"
)

rng = np.random.RandomState(0)
H = np.float32(0.3)


def products(inputs, outputs, stochastic=False):
    """A function of x and y that gives x Wb, y Wb^T, both by the fused op, and Wb."""
    W = theano.shared(rng.uniform(-1, 1, (inputs, outputs)).astype("float32"))
    stream = PhiloxStream(1) if stochastic else None
    Wb = binary_connect.binarization(W, H, stochastic=stochastic, srng=stream)
    x, y = T.matrix(), T.matrix()
    forward = T.dot(x, Wb)
    backward = theano.grad(None, x, known_grads={forward: y})
    function = theano.function([x, y], [forward, backward, Wb])
    ops = [node.op for node in function.maker.fgraph.apply_nodes]
    assert sum(isinstance(op, BinaryProduct) for op in ops) == 2
    assert sum(isinstance(op, Binarize) for op in ops) == 1
    assert sum(isinstance(op, PackSigns) for op in ops) == 1
    return function


SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (8, 32, 32),
    (9, 33, 31),
    (200, 784, 130),
    (65, 129, 10),
    (7, 260, 64),
]


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_real_inputs(rows, inputs, outputs, stochastic):
    function = products(inputs, outputs, stochastic)
    x = rng.normal(size=(rows, inputs)).astype("float32")
    y = rng.normal(size=(rows, outputs)).astype("float32")
    forward, backward, Wb = function(x, y)
    assert set(np.unique(Wb)) <= {-H, H}
    assert_near(forward, x.astype("float64") @ Wb)
    assert_near(backward, y.astype("float64") @ Wb.T)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_integer_inputs_are_exact(rows, inputs, outputs):
    W = theano.shared(rng.uniform(-1, 1, (inputs, outputs)).astype("float32"))
    Wb = binary_connect.binarization(W, np.float32(1))
    x = rng.randint(-255, 256, (rows, inputs)).astype("float32")
    signs = np.where(W.get_value() >= 0, 1.0, -1.0)
    assert np.array_equal(T.dot(T.constant(x), Wb).eval(), x @ signs)


@pytest.mark.parametrize("values", [[-1, 1], [-2, 0, 2], [0], [-1.25, 0, 1.25]])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_binary_inputs_are_exact(rows, inputs, outputs, values):
    W = theano.shared(rng.uniform(-1, 1, (inputs, outputs)).astype("float32"))
    x = rng.choice(np.float32(values), (rows, inputs))
    signs = np.where(W.get_value() >= 0, 1.0, -1.0)
    for H in (1, 0.3):
        Wb = binary_connect.binarization(W, np.float32(H))
        expected = np.float32(H) * (x @ signs).astype("float32")
        assert np.array_equal(T.dot(T.constant(x), Wb).eval(), expected)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3, 1e-40])
@pytest.mark.parametrize("place", [0, 33, 129])
def test_one_input_that_is_not_binary(special, place):
    W = theano.shared(rng.uniform(-1, 1, (130, 40)).astype("float32"))
    x = rng.choice(np.float32([-1, 1]), (9, 130))
    x[4, place] = special
    product = T.dot(T.constant(x), binary_connect.binarization(W, np.float32(1))).eval()
    expected = x.astype("float64") @ np.where(W.get_value() >= 0, 1.0, -1.0)
    assert np.array_equal(product, expected.astype("float32"), equal_nan=True)


@pytest.mark.parametrize("H", [1, 0.3])
@pytest.mark.parametrize("units", [3, 40])
def test_signs_of_special_weights(H, units):
    """They are those of binarization: tiny negative weights are positive, NaN is negative."""
    weights = [0.0, -0.0, 1e-40, -1e-40, -1e-9, -1e-7, -1e-3, 1e-3, np.inf, -np.inf, np.nan, -2, 2]
    W = np.float32(np.repeat(np.float32(weights)[:, None], units, axis=1))
    x = np.eye(len(weights), dtype="float32")
    Wb = binary_connect.binarization(theano.shared(W), np.float32(H))
    product = T.dot(T.constant(x), Wb)
    assert np.array_equal(product.eval(), Wb.eval())
    turned = T.dot(T.constant(np.eye(units, dtype="float32")), Wb.T)
    assert np.array_equal(turned.eval(), Wb.eval().T)


def test_any_strides_and_numbers_of_rows():
    function = products(100, 50)
    x = rng.normal(size=(100, 40)).astype("float32").T
    y = rng.normal(size=(80, 50)).astype("float32")[::2]
    strided = function(x, y)
    contiguous = function(x.copy(), y.copy())
    assert all(np.array_equal(a, b) for a, b in zip(strided, contiguous, strict=True))
    rows = [function(x[i : i + 1], y[i : i + 1])[0] for i in range(40)]
    assert np.array_equal(np.concatenate(rows), strided[0])
    assert function(x[:0], y[:0])[0].shape == (0, 50)
    with pytest.raises(ValueError, match="40 inputs to a product with weights of 100"):
        function(x.T, y)


def test_other_products_stay(monkeypatch):
    W = theano.shared(np.ones((4, 3), "float32"))
    x = T.matrix()
    for Wb in (W, 2 * binary_connect.binarization(W, H), binary_connect.binarization(W, H) ** 2):
        function = theano.function([x], T.dot(x, Wb))
        assert not any(isinstance(n.op, BinaryProduct) for n in function.maker.fgraph.apply_nodes)
    y = T.dot(x, binary_connect.binarization(W, H))
    for off in (
        lambda patch: patch.setenv("BINARYCONNECT_FUSED", "0"),
        lambda patch: patch.setattr(machine, "processor", dict),
    ):
        with monkeypatch.context() as patch:
            off(patch)
            plain = theano.function([x], y)
        assert not any(isinstance(n.op, BinaryProduct) for n in plain.maker.fgraph.apply_nodes)


def test_compiles_whatever_processor_the_flags_name():
    code = (
        "import original_stack, theano, theano.tensor as T, numpy as np, fused\n"
        "Wb = fused.binarize(theano.shared(np.ones((3, 2), 'float32')), 1.0)\n"
        "f = theano.function([], T.dot(np.ones((1, 3), 'float32'), Wb))\n"
        "print([type(n.op).__name__ for n in f.maker.fgraph.toposort()], f().tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "THEANO_FLAGS": "gcc.cxxflags=-march=x86-64-v3"},
        cwd=original_stack.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['PackSigns', 'BinaryProduct'] [[3.0, 3.0]]\n", done.stderr
