"""The gradient with respect to filters of binary images against Theano's in double precision."""

from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near

from fused import binarize, conv3x3
from fused.convolution import BinaryFilterGradient, _FilterGradient
from fused.product import INSTRUCTIONS

pytestmark = pytest.mark.skipif(
    not machine.has(*INSTRUCTIONS), reason="this processor has no AVX-512"
)

rng = np.random.RandomState(0)
H = np.float32(0.3)

# batch, channels, filters, height, width: single ones, odd sizes, remainders of groups of pixels,
# of panels of channels and of filters, several chunks of rows, rows of more than a word
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 2, 3, 1, 4),
    (2, 3, 5, 7, 9),
    (3, 33, 34, 5, 2),
    (2, 31, 65, 6, 8),
    (5, 3, 64, 32, 32),
    (3, 66, 70, 17, 16),
    (4, 256, 130, 8, 8),
    (2, 5, 9, 4, 33),
]


def filter_gradient(convolution, binarized, dtype):
    """A function of images, which it binarizes, and gradients with respect to the output."""
    x, W, dy = (T.TensorType(dtype, (False,) * 4)() for _ in range(3))
    y = convolution(binarized(x), W)
    gradient = theano.grad(None, W, known_grads={y: dy})
    return theano.function([x, dy, W], gradient, on_unused_input="ignore")


@pytest.fixture(scope="module")
def ours():
    function = filter_gradient(conv3x3, lambda x: binarize(x, H), "float32")
    assert BinaryFilterGradient in {type(n.op) for n in function.maker.fgraph.apply_nodes}
    return lambda x, dy: function(x, dy, np.zeros((dy.shape[1], x.shape[1], 3, 3), "float32"))


@pytest.fixture(scope="module")
def reference():
    function = filter_gradient(
        lambda x, W: T.nnet.conv2d(x, W, border_mode=1),
        lambda x: T.switch(x < 0, -1, 1) * np.float64(H),
        "float64",
    )
    return lambda x, dy: function(
        x.astype("float64"), dy.astype("float64"), np.zeros((dy.shape[1], x.shape[1], 3, 3))
    )


def images(batch, channels, height, width):
    return rng.normal(size=(batch, channels, height, width)).astype("float32")


@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), SHAPES)
def test_gradient(ours, reference, batch, channels, filters, height, width):
    x, dy = images(batch, channels, height, width), images(batch, filters, height, width)
    assert_near(ours(x, dy), reference(x, dy))


def test_integers_are_exact(reference):
    function = filter_gradient(conv3x3, lambda x: binarize(x, np.float32(1)), "float32")
    x, dy = images(3, 40, 9, 10), np.rint(100 * images(3, 11, 9, 10))
    result = function(x, dy, np.zeros((11, 40, 3, 3), "float32"))
    np.testing.assert_array_equal(result, np.rint(reference(x, dy) / np.float64(H)))


def test_any_strides_and_no_images(ours):
    x, dy = images(20, 5, 8, 9), images(20, 6, 8, 9)
    strided = ours(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), dy.repeat(2, axis=0)[::2])
    assert np.array_equal(strided, ours(x, dy))
    for empty in (ours(x[:0], dy[:0]), ours(x[:, :, :0], dy[:, :, :0])):
        assert np.array_equal(empty, np.zeros((6, 5, 3, 3)))
    assert ours(x[:, :0], dy).shape == (6, 0, 3, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_reaches_its_filter_only(ours, value):
    """And of this, the weights that its pixel, a corner, meets within the image."""
    x, dy = images(1, 5, 8, 8), images(1, 9, 8, 8)
    expected = ours(x, dy)
    dy[0, 2, 0, 0] = value
    result = ours(x, dy)
    assert not np.isfinite(result[2, :, :2, :2]).any()
    result[2, :, :2, :2] = expected[2, :, :2, :2]
    np.testing.assert_array_equal(result, expected)


def test_rejects_other_shapes(ours):
    message = (
        r"^conv3x3: a gradient of shape \(2, 6, 8, 8\) does not fit images of shape "
        r"\(1, 5, 8, 8\)\n"
    )
    with pytest.raises(ValueError, match=message):
        ours(images(1, 5, 8, 8), images(2, 6, 8, 8))


def test_gradients_of_other_images_stay(monkeypatch):
    real = filter_gradient(conv3x3, lambda x: 2 * binarize(x, H), "float32")
    assert _FilterGradient in {type(n.op) for n in real.maker.fgraph.apply_nodes}
    with monkeypatch.context() as patch:
        patch.setattr(machine, "has", lambda *names: False)
        other = filter_gradient(conv3x3, lambda x: binarize(x, H), "float32")
        assert _FilterGradient in {type(n.op) for n in other.maker.fgraph.apply_nodes}
