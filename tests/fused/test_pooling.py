"""fused.pooling against its reference, theano.tensor.signal.pool.pool_2d."""

import original_stack

import numpy as np
import pytest
import theano
import theano.tensor as T
from theano.tensor.signal.pool import pool_2d

import fused


def output_and_gradient(size=(2, 2), ignore_border=True, **arguments):
    input, gradient = T.ftensor4s(2)
    output = pool_2d(input, size, ignore_border, **arguments)
    input_gradient = theano.grad(None, input, known_grads={output: gradient})
    return theano.function([input, gradient], [output, input_gradient])


def ops(function):
    return {type(node.op).__name__ for node in function.maker.fgraph.toposort()}


@pytest.fixture(scope="module")
def ours():
    return output_and_gradient()


@pytest.fixture(scope="module")
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINARYCONNECT_FUSED", "0")
        return output_and_gradient()


def test_rewrite(ours, reference):
    assert ops(ours) == {"MaxPool", "MaxPoolGradient"}
    assert ops(reference) == {"Pool", "MaxPoolGrad"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (3, 3)},
        {"size": (2, 3)},
        {"stride": (1, 1)},
        {"ignore_border": False},
        {"pad": (1, 1)},
        {"mode": "average_inc_pad"},
    ],
    ids=str,
)
def test_other_pooling_stays(arguments):
    assert "MaxPool" not in ops(output_and_gradient(**arguments))


def arrays(shape, seed=1):
    """Images of few values (many ties, both zeros) and gradients."""
    random = np.random.RandomState(seed)
    batch, channels, height, width = shape
    pooled = (batch, channels, height // 2, width // 2)
    input = random.randint(-2, 3, shape) * random.choice([-0.5, 0.5], shape)
    return [input.astype("float32"), random.normal(size=pooled).astype("float32")]


@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 2), (2, 3, 7, 9), (3, 5, 4, 3), (5, 4, 32, 32), (2, 9, 66, 35)], ids=str
)
def test_equals_reference(ours, reference, shape):
    given = arrays(shape)
    for result, expected in zip(ours(*given), reference(*given), strict=True):
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)


def test_every_tied_maximum_gets_the_gradient(ours):
    input = np.array([[[[1, 1, 3, 0], [0, 1, 2, 2]]]], "float32")
    output, gradient = ours(input, np.array([[[[10, 20]]]], "float32"))
    np.testing.assert_array_equal(output, [[[[1, 3]]]])
    np.testing.assert_array_equal(gradient, [[[[10, 10, 20, 0], [0, 10, 0, 0]]]])


def test_nothing_to_pool(ours):
    output, gradient = ours(np.ones((2, 1, 1, 5), "float32"), np.ones((2, 1, 0, 2), "float32"))
    assert output.shape == (2, 1, 0, 2)
    np.testing.assert_array_equal(gradient, np.zeros((2, 1, 1, 5)))


def test_non_contiguous(ours):
    given = arrays((2, 4, 6, 8))
    expected = ours(*given)
    strided = [np.asfortranarray(given[0]), given[1][:, ::-1].copy()[:, ::-1]]
    assert not any(a.flags.c_contiguous for a in strided)
    for result, contiguous in zip(ours(*strided), expected, strict=True):
        np.testing.assert_array_equal(result, contiguous)


def test_shapes_are_inferred_without_computing():
    input = T.ftensor4()
    output = pool_2d(input, (2, 2), ignore_border=True)
    shapes = theano.function([input], [output.shape, T.grad(output.sum(), input).shape])
    assert not any("Pool" in name for name in ops(shapes))
    assert [tuple(s) for s in shapes(arrays((2, 3, 7, 4))[0])] == [(2, 3, 3, 2), (2, 3, 7, 4)]


def test_rejects_other_shapes(ours):
    message = "^max_pool_2x2: the gradient's shape is not that of the output\n"
    with pytest.raises(ValueError, match=message):
        ours(np.ones((1, 1, 4, 4), "float32"), np.ones((1, 1, 2, 1), "float32"))
