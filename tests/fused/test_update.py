"""The fused updates against the plain expressions of Lasagne and of `clipping_scaling`."""

from collections import OrderedDict

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

from fused import update
from fused.update import Update

OPTIMIZERS = {
    "sgd": lasagne.updates.sgd,
    "adam": lasagne.updates.adam,
    "nesterov": lasagne.updates.nesterov_momentum,
    "rmsprop": lasagne.updates.rmsprop,
}


def updates_in(function):
    return [node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, Update)]


def scaled_and_clipped(updates, W, scale=3.0, H=0.5):
    updates = OrderedDict(updates)
    updates[W] = T.clip(W + np.float32(scale) * (updates[W] - W), -H, H)
    return updates


def build(optimizer, W, order="C"):
    """A function that updates shared variables from a product, as updates of weights do."""
    W = theano.shared(np.array(W, dtype="float32", order=order), borrow=True)
    x, dy, LR = T.matrix(), T.matrix(), T.scalar()
    updates = scaled_and_clipped(optimizer([T.dot(x.T, dy)], [W], LR), W)
    return theano.function([x, dy, LR], updates=updates), list(updates)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("shape", "order"), [((7, 5), "C"), ((7, 5), "F"), ((1, 1), "C"), ((150, 211), "C")]
)
def test_equals_the_plain_update(monkeypatch, name, shape, order):
    rng = np.random.RandomState(0)
    W = rng.uniform(-0.6, 0.6, shape)
    fused, fused_values = build(OPTIMIZERS[name], W, order)
    monkeypatch.setenv("BINARYCONNECT_FUSED", "0")
    plain, plain_values = build(OPTIMIZERS[name], W, order)
    assert len(updates_in(fused)) == 1
    assert not updates_in(plain)
    for _ in range(4):
        x = rng.normal(size=(6, shape[0])).astype("float32")
        dy = rng.normal(size=(6, shape[1])).astype("float32")
        fused(x, dy, 0.01)
        plain(x, dy, 0.01)
        for a, b in zip(fused_values, plain_values, strict=True):
            a, b = a.get_value(), b.get_value()
            assert a.dtype == b.dtype == np.float32
            # Single roundings differ; Adam scales a gradient near zero up.
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def test_one_pass_in_place_and_one_product():
    fused, values = build(lasagne.updates.adam, np.zeros((4, 3)))
    (node,) = updates_in(fused)
    assert node.op.destroy_map == {0: [0], 1: [1], 2: [2]}
    products = [n for n in fused.maker.fgraph.apply_nodes if "Dot22" in str(n.op)]
    assert len(products) == 1
    memory = [v.get_value(borrow=True).ctypes.data for v in values[:3]]
    fused(np.ones((2, 4), "float32"), np.ones((2, 3), "float32"), 0.1)
    assert [v.get_value(borrow=True).ctypes.data for v in values[:3]] == memory
    np.testing.assert_allclose(values[2].get_value(), np.full((4, 3), -0.3), rtol=1e-5)


def test_old_and_intermediate_values_may_be_outputs():
    W = theano.shared(np.float32([[1.0, 2.0]]), broadcastable=(False, False))
    v = theano.shared(np.float32([[0.0, 1.0]]), broadcastable=(False, False))
    g = T.matrix()
    v_new = 0.5 * v - g**2
    function = theano.function([g], [W, v, g * 2], updates=[(v, v_new), (W, W + v_new)])
    old_W, old_v, double = function(np.float32([[1.0, 2.0]]))
    assert (old_W.tolist(), old_v.tolist(), double.tolist()) == ([[1, 2]], [[0, 1]], [[2, 4]])
    assert v.get_value().tolist() == [[-1, -3.5]]
    assert W.get_value().tolist() == [[0, -1.5]]
    assert len(updates_in(function)) == 1


def test_an_update_that_depends_on_another_new_value_as_a_whole():
    v = theano.shared(np.float32([1.0, 2.0]))
    W = theano.shared(np.float32([1.0, 1.0]))
    g = T.vector()
    v_new = v + g
    function = theano.function([g], updates=[(v, v_new), (W, (W - v_new) / v_new.sum())])
    function(np.float32([1.0, 1.0]))
    assert v.get_value().tolist() == [2, 3]
    np.testing.assert_allclose(W.get_value(), [-0.2, -0.4], rtol=1e-6)


def test_gradient_of_another_shape():
    W = theano.shared(np.zeros((3, 4), dtype="float32"))
    g = T.matrix()
    function = theano.function([g], updates=[(W, W - g)])
    with pytest.raises(
        ValueError, match="^Update: an input has another shape than the parameter\n"
    ):
        function(np.zeros((3, 5), dtype="float32"))


def test_other_types_stay_plain():
    counter = theano.shared(np.float32(0))
    integers = theano.shared(np.zeros(3, dtype="int64"))
    doubles = theano.shared(np.zeros(3, dtype="float64"))
    function = theano.function(
        [], updates=[(counter, counter + 1), (integers, integers + 2), (doubles, doubles + 3)]
    )
    function()
    assert not updates_in(function)
    assert [v.get_value().tolist() for v in (counter, integers, doubles)] == [1, [2] * 3, [3] * 3]


def test_equal_and_trivial_updates():
    a, b, c = (theano.shared(np.full(3, i, dtype="float32")) for i in range(3))
    x = T.vector()
    function = theano.function([x], updates=[(a, x + 1), (b, x + 1), (c, c**1.0)])
    function(np.float32([1, 2, 3]))
    assert [v.get_value().tolist() for v in (a, b, c)] == [[2, 3, 4], [2, 3, 4], [2, 2, 2]]
    a.set_value(np.zeros(3, "float32"))
    assert b.get_value().tolist() == [2, 3, 4]


def test_new_values_of_another_shape():
    """They are possible if they do not depend on the old values."""
    v, w = (theano.shared(np.zeros(2, "float32")) for _ in range(2))
    y = T.vector()
    function = theano.function([y], updates=[(v, 2 * T.exp(y)), (w, w.sum() + T.exp(y))])
    function(np.zeros(3, "float32"))
    assert [x.get_value().tolist() for x in (v, w)] == [[2, 2, 2], [1, 1, 1]]


def test_a_constant_mask():
    W, V = (theano.shared(np.ones((2, 3), "float32")) for _ in range(2))
    mask = T.constant(np.int8([[1, 0, 1], [0, 1, 0]]))
    g = T.matrix()
    function = theano.function([g], updates=[(W, T.switch(mask, W - g, W)), (V, V - 2 * g)])
    function(np.ones((2, 3), "float32"))
    assert W.get_value().tolist() == [[0, 1, 0], [1, 0, 1]]
    assert V.get_value().tolist() == [[-1] * 3] * 2
    assert len(updates_in(function)) == 1


def test_a_gradient_that_is_zero():
    """The gradient of a bias below batch normalization is, and earlier rewrites do not see it."""
    b, LR = T.vector(), T.scalar()
    new = b - LR.dimshuffle("x") * T.constant(np.zeros(8, np.float32))
    theano.gof.FunctionGraph([b, LR], [new], clone=False)
    assert update._update([b], [new], update._cone(new)) is None
