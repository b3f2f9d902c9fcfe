import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near
from lasagne.layers import InputLayer, get_all_params, get_output
from theano.sandbox.rng_mrg import MRG_RandomStreams

import binary_connect
from binary_connect import Conv2DLayer, DenseLayer, binarization

X4 = T.tensor4("X")


def seeded(seed=1):
    lasagne.random.set_rng(np.random.RandomState(seed))


@pytest.mark.parametrize("H", [1, 0.5, 0.05])
def test_binarization_golden(golden, H):
    values = golden("binarization")
    W = T.constant(values["W"])
    np.testing.assert_array_equal(binarization(W, H).eval(), values[f"det_H{H}"])
    assert_near(binary_connect.hard_sigmoid(W / H).eval(), values[f"p_H{H}"], 1e-7)


def test_weights_of_test_time_golden(golden):
    values = golden("binarization")
    W = values["W"].reshape(1, -1)
    for stochastic, name in ((True, "test_of_stochastic"), (False, "test_of_deterministic")):
        layer = DenseLayer((None, 1), W.size, stochastic=stochastic, W=W, nonlinearity=None)
        output = layer.get_output_for(T.ones((1, 1)), deterministic=True)
        np.testing.assert_array_equal(output.eval()[0], values[name])


@pytest.mark.parametrize("w", [0.0, -0.0, 1e-38, 1e-45, -1e-45, -1e-9, 1.0, 5.0, np.inf])
def test_zero_and_positive_weights_become_H(w):
    """So do negative ones that vanish beside 1, as in 2015."""
    W = T.constant(np.array([w, -1e-7], dtype=np.float32))
    np.testing.assert_array_equal(binarization(W, 0.25).eval(), np.float32([0.25, -0.25]))


def test_real_weights_stay():
    W = theano.shared(np.zeros(3, np.float32))
    assert binarization(W, 1.0, binary=False) is W
    assert binarization(W, 1.0, deterministic=True, stochastic=True) is W


def test_stochastic_binarization_golden(golden):
    """The draws of 2015, from the same generator with the same seed."""
    values = golden("stochastic_mrg")
    srng = MRG_RandomStreams(int(values["seed"]))
    W = theano.shared(values["W"])
    draw = theano.function([], binarization(W, 1.0, stochastic=True, srng=srng))
    np.testing.assert_array_equal(draw(), values["draw1"])
    np.testing.assert_array_equal(draw(), values["draw2"])


def draws(layer, count):
    x = T.constant(np.eye(layer.input_shape[1], dtype=np.float32))
    layer.get_output_for(x)
    function = theano.function([], layer.Wb)
    return np.array([function() for _ in range(count)])


@pytest.mark.parametrize("seed", [1, 2])
def test_stochastic_binarization_statistics(seed):
    """Each weight is +H as often as hard_sigmoid says; draws, layers, neighbours are unrelated."""
    seeded(seed)
    count, H = 400, 0.5
    W = np.linspace(-0.75, 0.75, 40 * 30, dtype=np.float32).reshape(40, 30)
    layers = [DenseLayer((None, 40), 30, H=H, W=W) for _ in range(2)]
    samples = [draws(layer, count) for layer in layers]
    p = np.clip((W / H + 1) / 2, 0, 1)
    deviation = np.sqrt(p * (1 - p))
    residuals = []
    for sample in samples:
        assert set(np.unique(sample)) == {-H, H}
        positive = sample > 0
        assert (abs(positive.mean(axis=0) - p) <= 5 * deviation / np.sqrt(count)).all()
        residuals.append((positive - p)[:, deviation > 0] / deviation[deviation > 0])
    a, b = residuals
    size = np.sqrt(a.size)
    for x, y in ((a[1:], a[:-1]), (a[:, 1:], a[:, :-1]), (a, b), (a[:, 30:], a[:, :-30])):
        assert abs(np.mean(x * y)) < 5 / size


def test_stochastic_binarization_repeats_by_seed():
    samples = []
    for seed in (3, 3, 4):
        seeded(seed)
        samples.append(draws(DenseLayer((None, 20), 30), 3))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()
    assert (samples[0][0] != samples[0][1]).any()


def test_coefficients_golden(golden):
    values = golden("coefficients")
    for name in values:
        kind, fan_in, fan_out = name.split("_")
        for scale, power in (("Glorot", 1), ("Glorot squared", 2)):
            options = {"H": "Glorot", "W_LR_scale": scale}
            if kind == "dense":
                layer = DenseLayer((None, int(fan_in)), int(fan_out), **options)
            else:
                layer = Conv2DLayer((None, int(fan_in), 8, 8), int(fan_out), (3, 3), **options)
            expected = values[name] ** [1, power]
            np.testing.assert_allclose([layer.H, layer.W_LR_scale], expected, rtol=1e-6)


@pytest.mark.parametrize("build", [DenseLayer, lambda *a, **k: Conv2DLayer(*a, 3, **k)])
def test_parameters_of_a_layer(build):
    layer = build((None, 2, 6, 6), 5, H=0.1)
    assert [p.name for p in layer.get_params()] == ["W", "b"]
    assert layer.params[layer.W] == {"binary"}
    assert get_all_params(layer, binary=True) == [layer.W]
    assert get_all_params(layer, trainable=True) == [layer.b]
    W = layer.W.get_value()
    assert -0.1 <= W.min() < -0.05 < 0.05 < W.max() <= 0.1
    real = build((None, 2, 6, 6), 5, binary=False)
    assert get_all_params(real, trainable=True) == [real.W, real.b]


@pytest.mark.parametrize("size", [3, 2, (3, 5), 1])
@pytest.mark.parametrize("pad", [0, 1, 2, (2, 1), "same", "full", "valid"])
def test_convolution_uses_binary_weights(size, pad):
    seeded()
    options = {"pad": pad, "nonlinearity": lasagne.nonlinearities.identity}
    layer = Conv2DLayer((2, 3, 7, 6), 4, size, stochastic=False, H=0.5, **options)
    signs = np.where(layer.W.get_value() >= 0, np.float32(0.5), np.float32(-0.5))
    plain = lasagne.layers.Conv2DLayer((2, 3, 7, 6), 4, size, W=signs, **options)
    x = np.random.RandomState(0).randn(2, 3, 7, 6).astype(np.float32)
    output = layer.get_output_for(T.constant(x)).eval()
    assert output.shape == layer.output_shape
    assert_near(output, plain.get_output_for(T.constant(x)).eval())


@pytest.fixture(scope="module")
def network():
    seeded()
    net = InputLayer((None, 1, 3, 4))
    net = DenseLayer(net, 6, H=0.5)
    return DenseLayer(net, 2, stochastic=False, nonlinearity=lasagne.nonlinearities.identity)


def test_gradients_are_those_of_the_binary_weights(network):
    """Whatever the order of get_output calls (in 2015 the last one decided)."""
    seeded()
    x = np.random.RandomState(0).randn(5, 1, 3, 4).astype(np.float32)
    get_output(network, X4)
    output = get_output(network, X4)
    first, second = (layer.Wb for layer in (network.input_layer, network))
    get_output(network, X4, deterministic=True)
    loss = T.sum(output**2)
    grads = binary_connect.compute_grads(loss, network)
    a, b, out, grad1, grad2 = theano.function([X4], [first, second, output, *grads])(x)
    hidden = np.maximum(x.reshape(5, 12) @ a, 0)
    assert set(np.unique(a)) == {-0.5, 0.5}
    assert_near(out, hidden @ b)
    assert_near(grad2, hidden.T @ (2 * out))
    assert_near(grad1, x.reshape(5, 12).T @ ((2 * out @ b.T) * (hidden > 0)))


def test_gradients_add_up_over_several_uses_of_the_same_weights(network):
    Y4 = T.tensor4("Y")
    x, y = np.random.RandomState(0).randn(2, 5, 1, 3, 4).astype(np.float32)
    losses = [T.sum(get_output(network, v, deterministic=True) ** 2) for v in (X4, Y4)]
    grads = [binary_connect.compute_grads(loss, network) for loss in (*losses, sum(losses))]
    a, b, both = (g[1] for g in grads)
    a, b, both = theano.function([X4, Y4], [a, b, both])(x, y)
    assert_near(both, a + b)


def test_clipping_and_scaling(network):
    W = network.W
    old = W.get_value()
    below = network.input_layer
    updates = {below.W: below.W + 9, W: W - 0.25, network.b: network.b + 7}
    network.W_LR_scale = 3.0
    new = binary_connect.clipping_scaling(updates, network)
    assert list(new) == [below.W, W, network.b]
    assert_near(new[W].eval(), np.clip(old - 3 * 0.25, -1, 1))
    assert_near(new[below.W].eval(), np.full((12, 6), 0.5))
    assert new[network.b] is updates[network.b]
    assert updates[W] is not new[W]


def test_test_weights(network):
    x = np.ones((1, 1, 3, 4), np.float32)

    def output(weights):
        return get_output(network, X4, deterministic=True, test_weights=weights).eval({X4: x})

    W1, W2 = network.input_layer.W.get_value(), network.W.get_value()
    b1, b2 = np.where(W1 >= 0, 0.5, -0.5), np.where(W2 >= 0, 1.0, -1.0)
    flat = x.reshape(1, 12)
    assert_near(output("binary"), np.maximum(flat @ b1, 0) @ b2)
    assert_near(output("real"), np.maximum(flat @ W1, 0) @ W2)
    assert_near(output(None), np.maximum(flat @ W1, 0) @ b2)
    assert (output("ensemble") != output("binary")).any()
    message = "test_weights is 'x', expected one of ('binary', 'real', 'ensemble')"
    with pytest.raises(ValueError, match="test_weights is 'x'") as caught:
        output("x")
    assert str(caught.value) == message


def test_train_prints_and_shuffles(capsys):
    """The function of 2015: full batches in a new order each epoch, every test image evaluated."""
    np.random.seed(0)
    rates, seen, sizes = [], [], []

    def train_fn(X, y, LR):
        np.testing.assert_array_equal(X[:, 0], y[:, 0])
        rates.append(LR)
        seen.append(X[:, 0])
        return 1.0

    def val_fn(X, y):
        sizes.append(len(X))
        return 0.5, (X == 0).mean()

    X = np.arange(11).reshape(11, 1)
    binary_connect.train(train_fn, val_fn, 4, 0.5, 0.1, 2, X, X, X[:6], X[:6], X[:5], X[:5])
    assert rates == [0.5, 0.5, 0.05, 0.05]
    assert len(set(np.concatenate(seen[:2]))) == 8
    assert not np.array_equal(seen[0], seen[2])
    assert sizes == [4, 2, 4, 1] * 2
    output = capsys.readouterr().out
    assert "Epoch 2 of 2 took" in output
    assert "  best epoch:                    2\n" in output  # the tie goes to the later epoch
    assert "  validation error rate:         16.666666666666664%\n" in output
    assert "  test error rate:               20.0%\n" in output
