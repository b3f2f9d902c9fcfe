"""fused.convolution against its reference, theano.tensor.nnet.conv2d, in float64."""

import original_stack
from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import printed_with_threads
from lasagne.layers import Conv2DLayer

from fused.binarization import binarize
from fused.convolution import Convolution, applicable, conv3x3

# batch, channels, filters, height, width: single ones, odd sizes, remainders of panels and blocks,
# several chunks
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 2, 3, 1, 4),
    (2, 3, 5, 7, 9),
    (3, 33, 34, 5, 2),
    (2, 31, 65, 6, 8),
    (5, 3, 128, 32, 32),
    (3, 128, 70, 17, 16),
    (9, 64, 256, 16, 16),
    (5, 512, 512, 8, 8),
]
# Bounds of errors, relative to the largest value: output, gradients of input and filters
TOLERANCES = (5e-6, 1e-5, 1e-5)


def outputs_and_gradients(convolution, dtype):
    input, filters, gradient = (T.TensorType(dtype, (False,) * 4)() for _ in range(3))
    output = convolution(input, filters)
    gradients = theano.grad(None, [input, filters], known_grads={output: gradient})
    return theano.function([input, filters, gradient], [output, *gradients])


@pytest.fixture(scope="module")
def ours():
    return outputs_and_gradients(conv3x3, "float32")


@pytest.fixture(scope="module")
def reference():
    return outputs_and_gradients(lambda x, w: T.nnet.conv2d(x, w, border_mode=1), "float64")


def arrays(shape, seed=1):
    """Images like activations (positive, half of them zero, unequal channels), filters of +-1,
    gradients about 0."""
    batch, channels, filters, height, width = shape
    random = np.random.RandomState(seed)
    input = random.normal(0.3, 1, (batch, channels, height, width)).clip(0)
    input *= np.exp(random.normal(0, 1, (channels, 1, 1)))
    return [
        input.astype("float32"),
        random.choice([-1, 1], (filters, channels, 3, 3)).astype("float32"),
        random.normal(0, 1, (batch, filters, height, width)).astype("float32"),
    ]


def assert_within_tolerances(results, expected, tolerances=TOLERANCES):
    for result, exact, tolerance in zip(results, expected, tolerances, strict=True):
        assert result.dtype == np.float32
        assert result.shape == exact.shape
        assert abs(result - exact).max() < tolerance * abs(exact).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(ours, reference, shape):
    given = arrays(shape)
    assert_within_tolerances(ours(*given), reference(*(a.astype("float64") for a in given)))


def test_real_filters(ours, reference):
    given = arrays((4, 48, 40, 16, 16))
    given[1] = np.random.RandomState(2).normal(0, 0.05, given[1].shape).astype("float32")
    assert_within_tolerances(ours(*given), reference(*(a.astype("float64") for a in given)))


def test_binarized_filters_without_avx512(reference, monkeypatch):
    """Transforms that only add and halve are closer to the reference, and exact for integers."""
    monkeypatch.setattr(machine, "processor", dict)
    given = arrays((3, 200, 36, 10, 7))
    function = outputs_and_gradients(lambda x, w: conv3x3(x, binarize(w, 1.0)), "float32")
    assert any(node.op == Convolution(tile=2) for node in function.maker.fgraph.apply_nodes)
    exact = reference(*(a.astype("float64") for a in given))
    results = function(*given)
    assert_within_tolerances(results[:2], exact[:2], (2e-6, 1e-5))
    assert not results[2].any()  # as a condition, binarization passes no gradient on
    given[0] = np.sign(given[0] - 0.5)
    exact = reference(*(a.astype("float64") for a in given))
    np.testing.assert_array_equal(function(*given)[0], exact[0])


def test_second_derivatives():
    """The gradient with respect to the input can be differentiated, like the convolution itself."""
    given = arrays((2, 5, 18, 8, 8))
    results = []
    for convolution, dtype in (
        (conv3x3, "float32"),
        (lambda x, w: T.nnet.conv2d(x, w, border_mode=1), "float64"),
    ):
        x, w, dy = (T.TensorType(dtype, (False,) * 4)() for _ in range(3))
        dx = theano.grad(None, x, known_grads={convolution(x, w): dy})
        wanted = theano.grad(None, [dy, w], known_grads={dx: x})
        results.append(theano.function([x, w, dy], wanted)(*(a.astype(dtype) for a in given)))
    for result, exact in zip(*results, strict=True):
        assert abs(result - exact).max() < 1e-5 * abs(exact).max()


def test_non_contiguous(ours):
    given = arrays((2, 5, 6, 8, 8))
    expected = ours(*given)
    strided = [np.asfortranarray(given[0]), given[1][::-1][::-1], given[2].transpose(1, 0, 2, 3)]
    strided[1] = np.ascontiguousarray(given[1][:, :, ::-1, ::-1])[:, :, ::-1, ::-1]
    strided[2] = np.ascontiguousarray(strided[2]).transpose(1, 0, 2, 3)
    assert not any(a.flags.c_contiguous for a in strided)
    for result, contiguous in zip(ours(*strided), expected, strict=True):
        np.testing.assert_array_equal(result, contiguous)


def test_empty_batch(ours):
    output, input_gradient, filter_gradient = ours(*arrays((0, 3, 4, 5, 6)))
    assert output.shape == (0, 4, 5, 6)
    assert input_gradient.shape == (0, 3, 5, 6)
    np.testing.assert_array_equal(filter_gradient, np.zeros((4, 3, 3, 3)))


def test_repeats_bit_for_bit_with_any_number_of_threads():
    program = (
        "import original_stack, hashlib, numpy as np, theano, theano.tensor as T, fused\n"
        "x, w, dy = T.tensor4s(3)\n"
        "y = fused.conv3x3(x, w)\n"
        "f = theano.function([x, w, dy], [y, *theano.grad(None, [x, w], known_grads={y: dy})])\n"
        "random = np.random.RandomState(1)\n"
        "shapes = (7, 70, 12, 14), (90, 70, 3, 3), (7, 90, 12, 14)\n"
        "given = [random.normal(size=shape).astype('float32') for shape in shapes]\n"
        "for _ in range(2):\n"
        "    print(*(hashlib.sha256(a).hexdigest() for a in f(*given)))\n"
    )
    (printed,) = printed_with_threads(program)
    first, second = printed.splitlines()
    assert first == second


def test_shapes_are_inferred_without_computing():
    input, filters = T.ftensor4(), T.ftensor4()
    output = conv3x3(input, filters)
    shapes = theano.function(
        [input, filters],
        [output.shape, T.grad(output.sum(), filters).shape],
        on_unused_input="ignore",
    )
    assert not any("Convolution" in str(node.op) for node in shapes.maker.fgraph.toposort())
    given = arrays((2, 3, 4, 5, 6))
    assert [tuple(s) for s in shapes(*given[:2])] == [(2, 4, 5, 6), (4, 3, 3, 3)]


def test_keeps_broadcast_patterns():
    input = T.TensorType("float32", (False, True, False, True))()
    filters = T.TensorType("float32", (True, True, False, False))()
    output = conv3x3(input, filters)
    assert output.broadcastable == (False, True, False, True)
    gradients = theano.grad(output.sum(), [input, filters])
    assert [g.broadcastable for g in gradients] == [input.broadcastable, filters.broadcastable]


def test_rejects_other_types():
    with pytest.raises(TypeError, match="^conv3x3 takes float32 4, float32 4; given float64 4$"):
        conv3x3(T.dtensor4(), T.ftensor4())


def test_rejects_other_shapes(ours):
    input, filters, gradient = arrays((2, 3, 4, 5, 6))
    message = (
        r"^conv3x3: filters of shape \(4, 3, 3, 3\) do not fit images of 2 channels, "
        r"expected \(filters, 2, 3, 3\)\n"
    )
    with pytest.raises(ValueError, match=message):
        ours(input[:, :2], filters, gradient)
    message = (
        r"^conv3x3: filters of shape \(4, 3, 3, 3\) do not fit images of 2 channels, "
        r"expected \(2, channels, 3, 3\)\n"
    )
    with pytest.raises(ValueError, match=message):
        ours(input, filters, gradient[:, :2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"pad": 1}, True),
        ({"pad": (1, 1)}, True),
        ({"pad": "same"}, True),
        ({"pad": 1, "num_filters": 15}, False),
        ({"pad": 0}, False),
        ({"pad": "full"}, False),
        ({"pad": 1, "stride": 2}, False),
        ({"pad": 1, "filter_size": 5}, False),
        ({"pad": 1, "convolution": lambda *args, **kwargs: None}, False),
    ],
)
def test_applicable(arguments, expected):
    layer = Conv2DLayer((None, 3, 8, 8), **{"num_filters": 16, "filter_size": 3, **arguments})
    assert applicable(layer, T.ftensor4()) is expected
    assert applicable(layer, T.dtensor4()) is False
