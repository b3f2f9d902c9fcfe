"""Convolutions with binarized filters against Theano's convolutions in double precision."""

import original_stack
from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near, printed_with_threads

import binary_connect
from fused import conv3x3
from fused.binarization import Binarize, PhiloxStream
from fused.convolution import BinaryConvolution, Convolution
from fused.product import INSTRUCTIONS

pytestmark = pytest.mark.skipif(
    not machine.has(*INSTRUCTIONS), reason="this processor has no AVX-512"
)

rng = np.random.RandomState(0)
H = np.float32(0.3)


def ops_of(function, kind):
    return [n.op for n in function.maker.fgraph.apply_nodes if type(n.op) is kind]


def convolutions(channels, filters, H=H, stochastic=False):
    """A function of images and gradients that gives the convolution of the former, the gradient
    with respect to them, both by the fused op, and the binarized filters."""
    W = theano.shared(rng.uniform(-1, 1, (filters, channels, 3, 3)).astype("float32"))
    stream = PhiloxStream(1) if stochastic else None
    Wb = binary_connect.binarization(W, H, stochastic=stochastic, srng=stream)
    x, dy = T.tensor4(), T.tensor4()
    y = conv3x3(x, Wb)
    function = theano.function([x, dy], [y, theano.grad(None, x, known_grads={y: dy}), Wb])
    assert len(ops_of(function, BinaryConvolution)) == 2
    assert len(ops_of(function, Binarize)) == 1
    assert not ops_of(function, Convolution)
    return function


def reference(x, dy, Wb):
    """The convolution and its gradient in double precision."""
    images, filters = T.dtensor4(), T.dtensor4()
    y = T.nnet.conv2d(images, filters, border_mode=1)
    gradient = theano.grad(None, images, known_grads={y: T.constant(dy.astype("float64"))})
    return theano.function([images, filters], [y, gradient])(
        *(a.astype("float64") for a in (x, Wb))
    )


# batch, channels, filters, height, width: single ones, odd sizes, remainders of groups of channels,
# of words and of panels, of rows and of stretches of a row
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 2, 3, 1, 4),
    (2, 3, 5, 7, 9),
    (3, 33, 34, 5, 2),
    (2, 31, 65, 6, 8),
    (5, 3, 64, 32, 32),
    (3, 66, 70, 17, 16),
    (4, 256, 130, 8, 8),
    (1, 512, 33, 8, 8),
    (2, 0, 3, 4, 5),
]


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), SHAPES)
def test_real_images(batch, channels, filters, height, width, stochastic):
    x = rng.normal(size=(batch, channels, height, width)).astype("float32")
    dy = rng.normal(size=(batch, filters, height, width)).astype("float32")
    y, gradient, Wb = convolutions(channels, filters, stochastic=stochastic)(x, dy)
    assert set(np.unique(Wb)) <= {-H, H}
    for result, expected in zip((y, gradient), reference(x, dy, Wb), strict=True):
        assert_near(result, expected)


def test_integers_are_exact():
    x = rng.randint(-255, 256, (2, 200, 10, 7)).astype("float32")
    dy = rng.randint(-255, 256, (2, 36, 10, 7)).astype("float32")
    y, gradient, Wb = convolutions(200, 36, H=np.float32(1))(x, dy)
    expected = reference(x, dy, Wb)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(gradient, expected[1])


@pytest.mark.parametrize("values", [(-1, 1), (-1, 0, 1)])
@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), SHAPES)
def test_binary_images_are_exact(batch, channels, filters, height, width, values):
    x = np.float32(rng.choice(values, (batch, channels, height, width)))
    dy = np.float32(rng.choice(values, (batch, filters, height, width)))
    y, gradient, Wb = convolutions(channels, filters, H=np.float32(1))(x, dy)
    for result, expected in zip((y, gradient), reference(x, dy, Wb), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_each_image_is_binary_or_not():
    """Negative zeros are zeros; the middle image has one other value, the last one no value."""
    x = np.float32(rng.choice([-0.5, -0.0, 0.0, 0.5], (3, 40, 6, 21)))
    x[1, 39, 5, 20] = 0.7
    x[2] = 0
    function = convolutions(40, 5)
    y, _, Wb = function(x, np.zeros((3, 5, 6, 21), "float32"))
    expected, _ = reference(x, y, Wb)
    assert_near(y, expected)
    counts = np.float32(np.rint(expected[0] / 0.5 / H))
    assert np.array_equal(y[0], H * (np.float32(0.5) * counts))
    assert not y[2].any()


def test_any_strides_and_numbers_of_images():
    function = convolutions(5, 6)
    x = rng.normal(size=(8, 9, 5, 20)).astype("float32").transpose(3, 2, 0, 1)
    dy = rng.normal(size=(40, 6, 8, 9)).astype("float32")[::2]
    strided = function(x, dy)
    contiguous = function(x.copy(), dy.copy())
    assert all(np.array_equal(a, b) for a, b in zip(strided, contiguous, strict=True))
    alone = [function(x[i : i + 1], dy[i : i + 1])[0] for i in range(20)]
    assert np.array_equal(np.concatenate(alone), strided[0])
    y, gradient, _ = function(x[:0], dy[:0])
    assert (y.shape, gradient.shape) == ((0, 6, 8, 9), (0, 5, 8, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_reaches_its_neighbors_only(value):
    """Nothing of it comes from the border, absent channels (5 are no groups of 4) or the last call;
    an infinite pixel gives infinite sums."""
    x, dy = rng.normal(size=(1, 5, 8, 8)).astype("float32"), np.zeros((1, 6, 8, 8), "float32")
    function = convolutions(5, 6)
    expected, _, Wb = function(x, dy)
    damaged = x.copy()
    damaged[0, 4, 0, 0] = value
    y, _, _ = function(damaged, dy)
    np.testing.assert_array_equal(y[0, :, :2, :2], value * Wb[:, 4, 1:, 1:])
    y[:, :, :2, :2] = expected[:, :, :2, :2]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(function(x, dy)[0], expected)


def test_rejects_other_shapes():
    function = convolutions(5, 6)
    x, dy = np.zeros((1, 5, 8, 8), "float32"), np.zeros((1, 6, 8, 8), "float32")
    message = (
        r"^conv3x3: filters of shape \(6, 5, 3, 3\) do not fit images of 4 channels, "
        r"expected \(filters, 4, 3, 3\)\n"
    )
    with pytest.raises(ValueError, match=message):
        function(x[:, :4], dy)
    message = (
        r"^conv3x3: filters of shape \(6, 5, 3, 3\) do not fit images of 2 channels, "
        r"expected \(2, channels, 3, 3\)\n"
    )
    with pytest.raises(ValueError, match=message):
        function(x, dy[:, :2])


def test_other_convolutions_stay(monkeypatch):
    W = theano.shared(np.ones((4, 3, 3, 3), "float32"))
    x = T.tensor4()
    for filters in (W, 2 * binary_connect.binarization(W, H)):
        function = theano.function([x], conv3x3(x, filters))
        assert ops_of(function, Convolution) == [Convolution(tile=4)]
        assert not ops_of(function, BinaryConvolution)
    Wb = binary_connect.binarization(W, H)
    real = theano.function([x], conv3x3(x, Wb), givens={Wb: W + 1})
    assert not ops_of(real, BinaryConvolution)
    with monkeypatch.context() as patch:
        patch.setenv("BINARYCONNECT_FUSED", "0")
        assert not ops_of(theano.function([x], conv3x3(x, Wb)), BinaryConvolution)


def test_compiles_whatever_processor_the_flags_name_with_any_number_of_threads():
    code = (
        "import original_stack, theano, theano.tensor as T, numpy as np, fused, hashlib\n"
        "random = np.random.RandomState(1)\n"
        "x, W = (random.normal(size=s).astype('float32') for s in ((7, 9, 6, 8), (8, 9, 3, 3)))\n"
        "x, W = theano.shared(x), theano.shared(W)\n"
        "y = fused.conv3x3(x, fused.binarize(W, 1.0))\n"
        "z = fused.conv3x3(fused.binarize(x, 1.0), W)\n"
        "f = theano.function([], [y, theano.grad(None, W, known_grads={z: y})])\n"
        "names = {type(n.op).__name__ for n in f.maker.fgraph.toposort()}\n"
        "print(sorted(names), *(hashlib.sha256(result).hexdigest() for result in f()))"
    )
    (printed,) = printed_with_threads(code, THEANO_FLAGS="gcc.cxxflags=-march=x86-64-v3")
    assert printed.startswith("['Binarize', 'BinaryConvolution', 'BinaryFilterGradient'] ")
