import doctest
import inspect
import time

import h5py
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
from fused.convolution import Convolution

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
    """Negative w for which 1 + w rounds to 1 also become H, as in 2015."""
    W = T.constant(np.array([w, -1e-7], dtype=np.float32))
    np.testing.assert_array_equal(binarization(W, 0.25).eval(), np.float32([0.25, -0.25]))


def test_real_weights_are_unchanged():
    W = theano.shared(np.zeros(3, np.float32))
    assert binarization(W, 1.0, binary=False) is W
    assert binarization(W, 1.0, deterministic=True, stochastic=True) is W


def test_stochastic_binarization_golden(golden):
    """The values of 2015, from the same generator with the same seed."""
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
    """A weight is +H with the probability hard_sigmoid; samples, layers and neighbors are
    independent."""
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
    assert get_all_params(layer, regularizable=True) == []
    assert get_all_params(layer, binary=True) == [layer.W]
    assert get_all_params(layer, trainable=True) == [layer.b]
    W = layer.W.get_value()
    assert -0.1 <= W.min() < -0.05 < 0.05 < W.max() <= 0.1
    real = build((None, 2, 6, 6), 5, binary=False)
    assert get_all_params(real, trainable=True) == [real.W, real.b]
    assert get_all_params(real, regularizable=True) == [real.W]


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


def test_gradients_with_respect_to_the_binary_weights(network):
    """The order of `get_output` calls does not matter; in 2015 the last call decided."""
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
    """Training uses full batches in a new order each epoch; every test image is evaluated."""
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
    assert sizes == [4, 4, 4, 4] * 2
    output = capsys.readouterr().out
    assert "Epoch 2 of 2 took" in output
    assert "  best epoch:                    2\n" in output  # the tie goes to the later epoch
    assert "  validation error rate:         16.666666666666664%\n" in output
    assert "  test error rate:               20.0%\n" in output


@pytest.mark.parametrize("images", [1, 3, 4, 7, 8, 23])
def test_train_evaluates_every_image_by_full_batches(images, capsys):
    """A network with a fixed batch size can therefore be evaluated too."""
    batch = 8
    network = lasagne.layers.ReshapeLayer(InputLayer((batch, 3)), (batch, 1, 3))
    X, y = T.matrix(), T.matrix()
    output = get_output(network, X)[:, 0]
    function = theano.function([X, y], [T.mean((output - y) ** 2), T.mean(T.lt(output, y))])
    x, targets = np.random.RandomState(0).rand(2, images, 3).astype(np.float32)
    sets = [np.zeros(batch)] * 2 + [x, targets] * 2
    binary_connect.train(lambda *batch: 0.0, function, batch, 1, 1, 1, *sets)
    lines = capsys.readouterr().out.splitlines()
    loss, error = (float(line.split()[-1].rstrip("%")) for line in lines[-2:])
    assert loss == pytest.approx(np.mean((x - targets) ** 2), rel=1e-5)
    assert error == pytest.approx(100 * np.mean(x < targets), rel=1e-5)


@pytest.mark.parametrize("kind", ["lists", "h5py"])
def test_train_takes_lists_and_h5py_data_sets(kind, tmp_path, capsys):
    X = np.arange(12, dtype=np.float32).reshape(6, 2)
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        X = X.tolist() if kind == "lists" else file.create_dataset("X", data=X)
        binary_connect.train(
            lambda X, y, LR: X.sum() + y.sum(), lambda X, y: (X.mean(), 0.25), 2, 1, 1, 1, *[X] * 6
        )
    output = capsys.readouterr().out
    assert "  training loss:                 44.0\n" in output
    assert "  validation loss:               5.5\n" in output


def test_train_measures_durations_with_a_monotonic_clock(monkeypatch, capsys):
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the clock of the day"))
    monkeypatch.setattr(time, "monotonic", iter([5.0, 7.25]).__next__)
    X = np.zeros((2, 1))
    binary_connect.train(lambda *batch: 0.0, lambda X, y: (0.0, 0.0), 1, 1, 1, 1, *[X] * 6)
    assert "Epoch 1 of 1 took 2.2 s\n" in capsys.readouterr().out


def test_layers_that_share_their_weights_are_scaled_and_clipped_once():
    shared = theano.shared(np.full((2, 2), 0.25, np.float32), "shared")
    below = DenseLayer((None, 2), 2, W=shared, W_LR_scale=2.0)
    network = DenseLayer(below, 2, W=shared, W_LR_scale=2.0)
    new = binary_connect.clipping_scaling({shared: shared + 0.125}, network)
    np.testing.assert_array_equal(new[shared].eval(), np.full((2, 2), 0.5, np.float32))
    network.H = np.float32(0.5)
    with pytest.raises(ValueError, match="share the weights") as caught:
        binary_connect.clipping_scaling({shared: shared + 0.125}, network)
    assert str(caught.value) == (
        "layers share the weights shared with different (H, W_LR_scale): "
        "(1.0, 2.0) and (0.5, 2.0); give them the same"
    )


@pytest.mark.parametrize("fused", ["1", "0"])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_filters_are_flipped_or_not(monkeypatch, fused, stochastic, flip):
    monkeypatch.setenv("BINARYCONNECT_FUSED", fused)
    seeded()
    options = {"nonlinearity": lasagne.nonlinearities.identity, "stochastic": stochastic}
    layer = Conv2DLayer(InputLayer((2, 3, 5, 6)), 16, 3, pad=1, H=0.5, flip_filters=flip, **options)
    assert layer.flip_filters is flip
    x = np.random.RandomState(0).randn(2, 3, 5, 6).astype(np.float32)
    X, upstream = T.tensor4(), np.random.RandomState(1).randn(2, 16, 5, 6).astype(np.float32)
    output = get_output(layer, X)
    loss = T.sum(output * upstream)
    (gradient,) = binary_connect.compute_grads(loss, layer)
    function = theano.function([X], [layer.Wb, output, gradient])
    # Flipped filters also use the kernels for binary weights.
    assert Convolution(tile=4) not in [n.op for n in function.maker.fgraph.toposort()]
    Wb, y, gradient = function(x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    if flip:
        windows = windows[..., ::-1, ::-1]
    assert_near(y, np.einsum("bchwij,fcij->bfhw", windows, Wb))
    assert_near(gradient, np.einsum("bchwij,bfhw->fcij", windows, upstream))


def test_a_mode_without_a_compiler_takes_the_plain_graph():
    x = T.matrix()
    with theano.configparser.change_flags(mode="FAST_COMPILE"):
        layer = DenseLayer((None, 2), 1, W=np.float32([[-0.5], [0.5]]), stochastic=False)
        function = theano.function([x], layer.get_output_for(x))
    assert function(np.float32([[1, 3]])).tolist() == [[2]]


def test_an_integer_filter_size_means_a_square_filter():
    layers = [Conv2DLayer((None, 64, 8, 8), 64, size, H="Glorot") for size in (3, (3, 3))]
    H, scale = np.sqrt(1.5 / (9 * 128)), np.sqrt(9 * 128 / 1.5)
    for layer in layers:
        np.testing.assert_allclose([layer.H, layer.W_LR_scale], [H, scale], rtol=1e-6)


def test_sign_rule():
    """The same rule holds for arrays and for expressions: hard_sigmoid(x) >= 1/2."""
    x = np.float32([-np.inf, -1, -1e-7, -1e-8, -1e-45, -0.0, 0, 1e-45, 1, np.inf, np.nan])
    expected = [False] * 3 + [True] * 7 + [False]
    assert binary_connect.is_positive(x).tolist() == expected
    assert binary_connect.is_positive(T.constant(x)).eval().tolist() == expected
    assert (binary_connect.hard_sigmoid(T.constant(x)).eval() >= 0.5).tolist() == expected


NAMES_OF_2015 = {
    "hard_sigmoid": "x",
    "binarization": "W H binary deterministic stochastic srng",
    "DenseLayer": "incoming num_units binary stochastic H W_LR_scale kwargs",
    "Conv2DLayer": "incoming num_filters filter_size binary stochastic H W_LR_scale kwargs",
    "compute_grads": "loss network",
    "clipping_scaling": "updates network",
    "train": "train_fn val_fn batch_size LR_start LR_decay num_epochs "
    "X_train y_train X_val y_val X_test y_test",
}


@pytest.mark.parametrize("name", NAMES_OF_2015)
def test_names_and_parameters_of_2015(name):
    parameters = list(inspect.signature(getattr(binary_connect, name)).parameters)
    expected = NAMES_OF_2015[name].split()
    assert parameters[: len(expected)] == expected


def test_examples():
    assert doctest.testmod(binary_connect) == (0, 13)
