"""Products and convolutions of two binarized factors against numpy and plain graphs, exactly."""

from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near, convolution, printed_with_threads

import fused
from binary_net import binary_tanh_unit
from fused import xnor
from fused.binarization import binarize
from fused.convolution import conv3x3
from fused.signs import SignConvolution, SignProduct

pytestmark = pytest.mark.skipif(not machine.has("avx2"), reason="this processor has no AVX2")

rng = np.random.RandomState(0)
MAGNITUDES = [(1, 1), (1.25, 0.3)]  # c and H


@pytest.fixture
def without_vpopcntdq(monkeypatch):
    monkeypatch.setattr(machine, "has", lambda *names: set(names) <= {"avx2"})


def choice(magnitude, *shape):
    return np.float32(magnitude) * rng.choice(np.float32([-1, 1]), shape)


def scaled(sums, c, H):
    return np.float32(H) * (np.float32(c) * sums.astype("float32"))


def compiled(op, *arrays):
    """A function without inputs; not optimized, since that would compute the result at once."""
    return theano.function([], op(*map(T.constant, arrays)), mode=theano.Mode(optimizer=None))


def ops(function):
    return {type(node.op) for node in function.maker.fgraph.apply_nodes}


# rows, inputs, units: single ones, none, parts of words and panels, several blocks of columns
PRODUCTS = [
    (1, 1, 1),
    (0, 5, 7),
    (4, 0, 3),
    (4, 3, 0),
    (3, 5, 7),
    (31, 64, 8),
    (33, 65, 9),
    (9, 130, 1030),
    (200, 784, 130),
]


@pytest.mark.parametrize(("c", "H"), MAGNITUDES)
@pytest.mark.parametrize(("rows", "inputs", "units"), PRODUCTS)
def test_product(rows, inputs, units, c, H):
    x, W = choice(1, rows, inputs), choice(1, inputs, units)
    product = compiled(SignProduct(), np.float32(c) * x, np.float32(H) * W)()
    expected = scaled(x @ W, c, H)
    assert product.dtype == "float32"
    np.testing.assert_array_equal(product, expected)


# batch, channels, filters, height, width: as for products, and several chunks of images
CONVOLUTIONS = [
    (1, 1, 1, 1, 1),
    (0, 3, 2, 4, 4),
    (2, 0, 3, 4, 4),
    (2, 3, 0, 4, 4),
    (2, 3, 2, 0, 4),
    (1, 2, 3, 1, 4),
    (2, 3, 5, 7, 9),
    (3, 65, 34, 5, 2),
    (3, 70, 9, 40, 33),
    (5, 3, 128, 32, 32),
]


@pytest.mark.parametrize(("c", "H"), MAGNITUDES)
@pytest.mark.parametrize(("batch", "channels", "filters", "height", "width"), CONVOLUTIONS)
def test_convolution(batch, channels, filters, height, width, c, H):
    x, W = choice(1, batch, channels, height, width), choice(1, filters, channels, 3, 3)
    sums = convolution(x, W).transpose(0, 3, 1, 2)
    output = compiled(SignConvolution(), np.float32(c) * x, np.float32(H) * W)()
    assert output.dtype == "float32"
    np.testing.assert_array_equal(output, scaled(sums, c, H))


def test_each_kernel_gives_the_same(monkeypatch):
    x, W = choice(1, 40, 130), choice(1, 130, 70)
    images, filters = choice(1, 3, 70, 9, 8), choice(1, 40, 70, 3, 3)
    product = compiled(SignProduct(), x, W)
    output = compiled(SignConvolution(), images, filters)
    sums = output()
    for kernel in xnor.kernels():
        monkeypatch.setenv("BINARYCONNECT_XNOR", kernel)
        np.testing.assert_array_equal(product(), x @ W)
        np.testing.assert_array_equal(output(), sums)


def test_any_strides():
    x, W = choice(1, 50, 40), choice(1, 30, 50)
    np.testing.assert_array_equal(
        compiled(SignProduct(), x.T[:, ::2], W.T[::2])(), x[::2].T @ W.T[::2]
    )
    images, filters = choice(1, 2, 6, 5, 8), choice(1, 7, 5, 3, 3)
    strided = compiled(SignConvolution(), images.swapaxes(1, 2), filters[:, :, ::-1])()
    copied = compiled(SignConvolution(), images.swapaxes(1, 2).copy(), filters[:, :, ::-1].copy())()
    np.testing.assert_array_equal(strided, copied)


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="^5 inputs to a product with weights of 6\n"):
        compiled(SignProduct(), choice(1, 2, 5), choice(1, 6, 3))()
    expected = r"^conv3x3: filters of shape \(2, 4, 3, 3\) do not fit images of 3 channels, "
    with pytest.raises(ValueError, match=expected):
        compiled(SignConvolution(), choice(1, 1, 3, 4, 4), choice(1, 2, 4, 3, 3))()


def test_a_kernel_that_is_not_there(monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_XNOR", "sse")
    with pytest.raises(ValueError, match="^BINARYCONNECT_XNOR is 'sse', expected avx512, "):
        compiled(SignProduct(), choice(1, 2, 5), choice(1, 5, 3))()


def test_does_not_depend_on_threads():
    code = (
        "import original_stack; import hashlib; import numpy as np; import theano.tensor as T\n"
        "from fused.signs import SignConvolution, SignProduct\n"
        "r = np.random.RandomState(0)\n"
        "def signs(*shape): return T.constant(r.choice(np.float32([-1.25, 1.25]), shape))\n"
        "for y in (SignProduct()(signs(70, 300), signs(300, 90)),\n"
        "          SignConvolution()(signs(5, 70, 20, 33), signs(128, 70, 3, 3))):\n"
        "    print(hashlib.sha256(y.eval().tobytes()).hexdigest())"
    )
    assert len(printed_with_threads(code)) == 1


def network(x, W, filters, convolution=conv3x3):
    """Binary activations, a convolution, and a product of its activations in a new shape; and the
    binarized weights."""
    Wb, of_filters = binarize(W, np.float32(0.5)), binarize(filters, np.float32(1))
    hidden = binary_tanh_unit(convolution(binary_tanh_unit(x), of_filters))
    return T.dot(hidden.flatten(2), Wb), Wb, of_filters


def test_a_graph_with_binary_activations(without_vpopcntdq):
    """Special values too: zero and tiny negative numbers are +1, NaN is -1."""
    x = rng.normal(size=(4, 20, 6, 5)).astype("float32")
    x[0, 0, 0] = [0, -0.0, -1e-40, np.inf, np.nan]
    W = theano.shared(rng.normal(size=(16 * 30, 9)).astype("float32"))
    filters = theano.shared(rng.normal(size=(16, 20, 3, 3)).astype("float32"))

    def outputs_and_gradients(convolution):
        images, y = T.tensor4(), T.matrix()
        output, *binary = network(images, W, filters, convolution)
        gradients = theano.grad(None, [images, *binary], known_grads={output: y})
        return theano.function([images, y], [output, *gradients])

    function = outputs_and_gradients(conv3x3)
    nodes = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    assert (nodes.count(SignConvolution), nodes.count(SignProduct)) == (1, 1)
    with fused.disabled():
        plain = outputs_and_gradients(lambda x, w: T.nnet.conv2d(x, w, border_mode=1))
    y = rng.normal(size=(4, 9)).astype("float32")
    (output, *gradients), (exact, *expected) = function(x, y), plain(x, y)
    np.testing.assert_array_equal(output, exact)
    for gradient, reference in zip(gradients, expected, strict=True):
        assert reference.any()
        assert_near(gradient, reference)


@pytest.mark.parametrize(
    ("has", "counting"),
    [
        (("avx2",), {SignConvolution, SignProduct}),
        (("avx2", "avx512f", "avx512dq"), {SignConvolution}),
        (("avx2", "avx512f", "avx512dq", "avx512_vpopcntdq"), set()),
        ((), set()),
    ],
)
def test_processors_on_which_the_ops_are_used(monkeypatch, has, counting):
    monkeypatch.setattr(machine, "has", lambda *names: set(names) <= set(has))
    images, W, filters = T.tensor4(), T.matrix(), T.tensor4()
    fgraph = theano.gof.FunctionGraph([images, W, filters], [network(images, W, filters)[0]])
    theano.compile.mode.get_default_mode().optimizer.optimize(fgraph)
    used = {type(node.op) for node in fgraph.apply_nodes}
    assert used & {SignConvolution, SignProduct} == counting


def test_other_products_are_left_alone(without_vpopcntdq):
    x, y, W = T.matrices(3)
    v = T.vector()
    Wb, xb = binarize(W, np.float32(1)), binarize(x, np.float32(1))
    others = [
        T.dot(x, Wb),
        T.dot(xb, W),
        T.dot(y, Wb.T),
        T.dot(xb.T, y),
        T.dot(xb, Wb.T),
        T.dot(xb * y, Wb),  # as after dropout
        T.dot(binarize(v, np.float32(1)), Wb),
    ]
    given = [x, y, W, v]
    assert SignProduct not in ops(theano.function(given, others, on_unused_input="ignore"))
    with fused.disabled():
        assert SignProduct not in ops(theano.function([x, W], T.dot(xb, Wb)))


def test_other_convolutions_are_left_alone(without_vpopcntdq):
    x, y, filters = (T.tensor4() for _ in range(3))
    xb, Wb = binarize(x, np.float32(1)), binarize(filters, np.float32(1))
    backward = theano.grad(None, x, known_grads={conv3x3(x, Wb): binarize(y, np.float32(1))})
    others = [conv3x3(x, Wb), conv3x3(xb, filters), conv3x3(xb * y, Wb), backward]
    assert SignConvolution not in ops(theano.function([x, y, filters], others))
    with fused.disabled():
        assert SignConvolution not in ops(theano.function([x, filters], conv3x3(xb, Wb)))


def test_parts_and_new_shapes_of_binarized_numbers(without_vpopcntdq):
    x, filters = T.tensor4(), T.matrix()
    Wb = binarize(filters, np.float32(1)).reshape((4, 2, 3, 3))
    images, weights = choice(1, 3, 2, 5, 4), choice(1, 4, 18)
    function = theano.function([x, filters], conv3x3(binarize(x, np.float32(1)), Wb)[1:])
    expected = T.nnet.conv2d(T.constant(images), weights.reshape(4, 2, 3, 3), border_mode=1)
    assert SignConvolution in ops(function)
    np.testing.assert_array_equal(function(images, weights), expected.eval()[1:])
