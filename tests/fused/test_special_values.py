"""Fused ops against their references on NaN, infinities, subnormals, -0 and empty arrays."""

from original_stack import machine

import numpy as np
import pytest
import theano
import theano.tensor as T
from lasagne.nonlinearities import identity, rectify
from theano.tensor.signal.pool import pool_2d

import fused
from batch_norm import BatchNormLayer, CumulativeBatchNormLayer
from fused import xnor
from fused.normalization import BatchNorm
from fused.product import INSTRUCTIONS, BinaryProduct
from fused.update import Update

SPECIAL = [np.nan, np.inf, -np.inf, 1e-45, -1e-45, -0.0]


def both(build, *ndims):
    """The function of float32 variables that `build` describes, fused and plain."""
    functions = []
    for plain in (False, True):
        variables = [T.TensorType("float32", (False,) * ndim)() for ndim in ndims]
        if plain:
            with fused.disabled():
                functions.append(theano.function(variables, build(*variables)))
        else:
            functions.append(theano.function(variables, build(*variables)))
    return functions


def has(function, op):
    return any(isinstance(node.op, op) for node in function.maker.fgraph.apply_nodes)


def assert_same(results, expected):
    """Finite values are near each other, and other values are in the same places; infinities may
    have become NaN."""
    for a, b in zip(results, expected, strict=True):
        assert (a.dtype, a.shape) == (np.float32, b.shape)
        fine = np.isfinite(b)
        np.testing.assert_array_equal(np.isfinite(a), fine)
        np.testing.assert_allclose(a[fine], b[fine], rtol=2e-5, atol=2e-6)


@pytest.fixture(scope="module", params=[identity, rectify], ids=["linear", "rectified"])
def normalizations(request):
    def build(kind, shape):
        layer = kind((None, *shape[1:]), nonlinearity=request.param)

        def outputs(x, dy):
            y = layer.get_output_for(x)
            gradients = theano.grad(None, [x, layer.gamma, layer.beta], known_grads={y: dy})
            return [y, *gradients]

        return both(outputs, len(shape), len(shape))

    return {ndim: build(BatchNormLayer, (4, 3, 5, 4)[:ndim]) for ndim in (2, 4)} | {
        "cumulative": build(CumulativeBatchNormLayer, (4, 3))
    }


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("where", ["x", "gradient"])
def test_batch_norm(normalizations, value, where):
    for kind, (function, reference) in normalizations.items():
        shape = (4, 3, 5, 4) if kind == 4 else (4, 3)
        random = np.random.RandomState(0)
        x, dy = random.normal(size=(2, *shape)).astype("float32")
        (x if where == "x" else dy)[1, 2] = value
        results = function(x, dy)
        assert_same(results, reference(x, dy))
        if np.isnan(value):
            assert np.isnan(results[1][:, 2]).all()


def test_batch_norm_of_an_empty_batch(normalizations):
    for kind, (function, reference) in normalizations.items():
        empty = np.zeros((0, 3, 5, 4) if kind == 4 else (0, 3), "float32")
        assert_same(function(empty, empty), reference(empty, empty))


@pytest.fixture(scope="module")
def pooling():
    def build(x, dy):
        y = pool_2d(x, (2, 2), ignore_border=True)
        return [y, theano.grad(None, x, known_grads={y: dy})]

    return both(build, 4, 4)


@pytest.mark.parametrize("value", SPECIAL)
def test_max_pooling(pooling, value):
    x = np.random.RandomState(0).normal(size=(2, 3, 4, 6)).astype("float32")
    dy = np.random.RandomState(1).normal(size=(2, 3, 2, 3)).astype("float32")
    x[:, :, ::2, ::2] = value  # the first pixel, where Theano keeps NaN too
    dy[0, 0, 0, 0] = value
    (y, dx), (expected, gradient) = (function(x, dy) for function in pooling)
    np.testing.assert_array_equal(y, expected)
    if not np.isnan(value):
        np.testing.assert_array_equal(dx, gradient)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_is_the_maximum_wherever_it_is(pooling, place):
    x = np.float32([[[[1, 2], [3, 4]]]])
    x[0, 0][place] = np.nan
    y, dx = pooling[0](x, np.float32([[[[5]]]]))
    assert np.isnan(y).all()
    np.testing.assert_array_equal(dx, np.where(np.isnan(x), 5, 0))


@pytest.mark.parametrize("value", SPECIAL)
def test_convolution(value):
    def build(x, W, dy):
        with fused.disabled():
            plain = T.nnet.conv2d(x, W, border_mode=1)
        y = fused.conv3x3(x, W) if fused.enabled() else plain
        return [y, *theano.grad(None, [x, W], known_grads={y: dy})]

    random = np.random.RandomState(0)
    x, dy = random.normal(size=(2, 2, 3, 9, 9)).astype("float32")
    W = random.normal(size=(3, 3, 3, 3)).astype("float32")
    x[1, 2, 4, 4] = value
    function, reference = both(build, 4, 4, 4)
    for a, b in zip(function(x, W, dy), reference(x, W, dy), strict=True):
        # What is not finite reaches at most its tiles beyond the reference's.
        assert not np.isfinite(a[~np.isfinite(b)]).any()
        fine = np.isfinite(a)
        np.testing.assert_allclose(a[fine], b[fine], rtol=1e-4, atol=1e-5)
        assert fine[0].all() or a.shape == W.shape


@pytest.mark.parametrize("value", SPECIAL)
def test_product_with_binarized_weights(value):
    W = np.random.RandomState(0).normal(size=(7, 5)).astype("float32")

    def build(x):
        return T.dot(x, fused.binarize(theano.shared(W), 0.5))

    x = np.random.RandomState(1).normal(size=(3, 7)).astype("float32")
    x[1, 3] = value
    function, reference = both(build, 2)
    if machine.has(*INSTRUCTIONS):
        assert has(function, BinaryProduct)
    assert not has(reference, BinaryProduct)
    assert_same([function(x)], [reference(x)])


@pytest.mark.parametrize("value", SPECIAL)
def test_update(value):
    results = []
    for plain in (False, True):
        W = theano.shared(np.float32([[1, value, 2], [value, 0, 0.25]]))
        g = T.matrix()
        updates = [(W, T.clip(W - 0.5 * g + W**2, -1, 1))]
        if plain:
            with fused.disabled():
                function = theano.function([g], updates=updates)
        else:
            function = theano.function([g], updates=updates)
        assert has(function, Update) != plain
        function(np.float32([[value, 0, 1], [-0.0, value, 1e-45]]))
        results.append(W.get_value())
    assert_same(results[:1], results[1:])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fused.binarize(T.dmatrix(), 1.0), "binarize takes float32, float32 0; given"),
        (
            lambda: fused.binarize(T.matrix(), T.vector()),
            "binarize takes float32, float32 0; given",
        ),
        (
            lambda: BatchNorm(0.1, False, False)(T.matrix(), T.dvector(), T.vector()),
            "batch normalization takes float32, float32 1, float32 1; given float64 1",
        ),
        (
            lambda: BatchNorm(0.1, False, False)(T.vector(), T.vector(), T.vector()),
            r"batch normalization takes \(batch, channels, ...\); given 1 axes",
        ),
        (
            lambda: xnor.threshold(T.iscalar(), T.ivector(), np.zeros(1, "uint64")),
            "xnor.threshold takes sums of at least one axis; given none",
        ),
    ],
)
def test_other_types_are_refused_before_they_run(build, message):
    with pytest.raises(TypeError, match="^" + message):
        build()


def test_applicable_to_float32_only():
    W, H = T.matrix(), np.float32(1)
    assert fused.binarization.applicable(W, H)
    for other in ((T.dmatrix(), H), (W, np.float64(1)), (W, T.vector()), (W, H, object())):
        assert not fused.binarization.applicable(*other)
    x, v = T.matrix(), T.vector()
    assert fused.normalization.applicable(x, v, v, (0,), rectify)
    assert not fused.normalization.applicable(x, T.dvector(), v, (0,), rectify)
    assert not fused.normalization.applicable(T.vector(), v, v, (0,), rectify)


def test_gradients_of_double_precision():
    """Gradients are converted to single precision, not read as its bytes."""
    x, v, dy = T.matrix(), T.vector(), T.dmatrix()
    y = BatchNorm(0.1, False, True)(x, v, v)[0]
    function = theano.function([x, v, dy], theano.grad(None, x, known_grads={y: dy}))
    reference = theano.function(
        [x, v, dy], theano.grad(None, x, known_grads={y: T.cast(dy, "float32")})
    )
    values = np.random.RandomState(0).normal(size=(4, 3)).astype("float32"), np.ones(3, "float32")
    given = np.random.RandomState(1).normal(size=(4, 3))
    np.testing.assert_array_equal(function(*values, given), reference(*values, given))


def test_sums_too_large_for_their_type_are_refused():
    bits = np.zeros((1, 30, 1), np.uint64)
    output = xnor.dot(bits, np.zeros((1, 1, xnor.PANEL), np.uint64), 1, 1)
    with pytest.raises(ValueError, match=r"^xnor: sums of 1 inputs of 30 bits are not below 2\^30"):
        theano.function([], output)()
