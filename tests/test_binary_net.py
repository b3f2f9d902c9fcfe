import doctest
import inspect
import os
import subprocess
import sys

import original_stack

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_near

import binary_connect
import binary_net

images = np.random.RandomState(0).randn(8, 3, 4, 5).astype(np.float32) * 2 + 1


@pytest.fixture(params=["1", "0"], ids=["fused", "plain"])
def graph(request, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", request.param)


def values_and_gradient(unit, x):
    variable = T.vector()
    y = unit(variable)
    return theano.function([variable], [y, theano.grad(y.sum(), variable)])(x)


def test_binary_tanh_unit_equals_the_unit_of_2016(golden):
    values = golden("bnn_activation")
    y, gradient = values_and_gradient(binary_net.binary_tanh_unit, values["x"])
    assert np.array_equal(y, values["sign"])
    assert np.array_equal(gradient, values["grad"])


def test_binary_sigmoid_unit():
    x = np.float32([-np.inf, -1.5, -1, -0.5, -1e-9, 0, 0.5, 1, 1.5, np.inf])
    y, gradient = values_and_gradient(binary_net.binary_sigmoid_unit, x)
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert gradient.tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0]


def test_names_of_2016():
    names = "hard_sigmoid binarization DenseLayer Conv2DLayer compute_grads clipping_scaling"
    for name in names.split():
        assert getattr(binary_net, name) is getattr(binary_connect, name)
    own = "binary_tanh_unit binary_sigmoid_unit Round3 round3_scalar round3 train"
    assert {*names.split(), *own.split()} < set(binary_net.__all__)
    parameters = (
        "train_fn val_fn model batch_size LR_start LR_decay num_epochs "
        "X_train y_train X_val y_val X_test y_test save_path shuffle_parts"
    )
    assert " ".join(inspect.signature(binary_net.train).parameters) == parameters


def test_round3_rounds_halves_away_from_zero():
    """Like C's round, both in C and in Python. The gradient is 1."""
    half, infinity = np.float32(0.5), np.float32(np.inf)
    x = np.float32([-2.5, -half, np.nextafter(-half, half), -0.25, 0, half, 1.5, 2.5, infinity])
    rounded = [-3, -1, 0, 0, 0, 1, 2, 3, np.inf]
    y, gradient = values_and_gradient(binary_net.round3, x)
    assert y.tolist() == rounded
    assert gradient.tolist() == [1] * len(x)
    assert [binary_net.round3_scalar.impl(value) for value in x] == rounded
    assert np.isnan(values_and_gradient(binary_net.round3, np.float32([np.nan]))[0])


def test_stochastic_sign_layer(graph):
    lasagne.random.set_rng(np.random.RandomState(1))
    layer = binary_net.StochasticSignLayer((None, 5))
    x = T.matrix()
    X = np.tile(np.float32([-1, -0.5, 0, 0.5, 2]), (20000, 1))
    y = layer.get_output_for(x)
    draw = theano.function([x], [y, theano.grad(y.sum(), x)])
    first, gradient = draw(X)
    assert set(np.unique(first)) == {-1, 1}
    assert not np.array_equal(first, draw(X)[0])
    np.testing.assert_allclose((first > 0).mean(axis=0), [0, 0.25, 0.5, 0.75, 1], atol=0.015)
    assert np.array_equal(gradient, np.tile(np.float32([1, 1, 1, 1, 0]), (20000, 1)))
    at_test = theano.function([x], layer.get_output_for(x, deterministic=True))
    assert at_test(X[:1]).tolist() == [[-1, -1, 1, 1, 1]]


def test_stochastic_sign_has_the_gradient_of_its_sample(graph):
    """The loss is differentiated at the values that were sampled in the same evaluation."""
    lasagne.random.set_rng(np.random.RandomState(2))
    x = T.vector()
    y = binary_net.StochasticSignLayer((None, 1)).get_output_for(x)
    values, gradient = theano.function([x], [y, theano.grad(T.sum(y**3 + 5 * y), x)])(
        np.zeros(99, "float32")
    )
    assert gradient.tolist() == [8.0] * 99
    assert set(values) == {-1, 1}


def test_train_saves_the_best_epoch_and_shuffles_in_parts(tmp_path, capsys):
    network = lasagne.layers.DenseLayer((None, 1), 1, b=None)
    seen = []
    errors = {8: 0.5, 4: 0.25, 2: 0.75, 1: 0.25, 0.5: 0.5}  # by learning rate

    def train_fn(X, y, LR):
        seen.extend(X[:, 0])
        network.W.set_value(np.full((1, 1), LR, "float32"))
        return 1.0

    def val_fn(X, y):
        return 2.0, errors[network.W.get_value().item()] if X[0, 0] < 0 else 0.125

    X = np.arange(10, dtype="float32").reshape(10, 1)
    path = tmp_path / "best.npz"
    sets = [X, X, -X[1:3], X[1:3], X[1:3], X[1:3]]
    binary_net.train(
        train_fn, val_fn, network, 5, 8.0, 0.5, 5, *sets, save_path=path, shuffle_parts=2
    )
    epochs = np.reshape(seen, (5, 2, 5))
    assert all(set(first) == set(range(5)) for first, _ in epochs)
    assert all(set(second) == set(range(5, 10)) for _, second in epochs)
    assert len({tuple(first) for first, _ in epochs}) > 1
    with np.load(path) as saved:
        assert [saved[name].tolist() for name in saved.files] == [[[1.0]]]  # of epoch 4
    printed = capsys.readouterr().out
    assert "  best epoch:                    4\n" in printed
    assert "  test error rate:               12.5%\n" in printed


def test_lasagne_has_the_batch_normalization_of_2016():
    names = {}
    exec("from lasagne.layers import *", names)
    submodule = lasagne.layers.normalization
    for places in (names, vars(lasagne.layers), vars(submodule)):
        assert places["BatchNormLayer"] is binary_net.BatchNormLayer
        assert places["batch_norm"] is binary_net.batch_norm
    assert {"BatchNormLayer", "batch_norm"} < set(submodule.__all__)
    with pytest.raises(AttributeError) as caught:
        lasagne.layers.ExpressionLayer  # noqa: B018
    assert str(caught.value) == (
        "Lasagne 0.1 has no lasagne.layers.ExpressionLayer; "
        "scripts of 2016 ran on a development version"
    )


def test_lasagne_batch_norm_takes_bias_and_nonlinearity():
    dense = lasagne.layers.DenseLayer((None, 4), 3, nonlinearity=lasagne.nonlinearities.tanh)
    layer = lasagne.layers.batch_norm(dense, alpha=0.25)
    assert type(layer) is lasagne.layers.NonlinearityLayer
    assert layer.nonlinearity is lasagne.nonlinearities.tanh
    normalization = layer.input_layer
    assert type(normalization) is binary_net.BatchNormLayer
    assert normalization.alpha == 0.25
    assert normalization.input_layer is dense
    assert (dense.b, dense.nonlinearity) == (None, lasagne.nonlinearities.identity)
    assert [p.name for p in dense.get_params()] == ["W"]
    plain = lasagne.layers.batch_norm(lasagne.layers.DropoutLayer((None, 4)))
    assert type(plain) is binary_net.BatchNormLayer


@pytest.mark.parametrize("options", [{}, {"beta": None}, {"gamma": None}, {"axes": (0, -1)}])
@pytest.mark.parametrize("fused", ["1", "0"])
def test_lasagne_batch_normalization(monkeypatch, fused, options):
    monkeypatch.setenv("BINARYCONNECT_FUSED", fused)
    axes = options.get("axes", (0, 2, 3))
    layer = binary_net.BatchNormLayer((8, 3, 4, 5), epsilon=0.5, alpha=0.25, **options)
    names = [name for name in ("beta", "gamma") if name not in options]
    assert [p.name for p in layer.get_params()] == [*names, "mean", "inv_std"]
    assert [p.name for p in layer.get_params(trainable=True)] == names
    assert [p.name for p in layer.get_params(regularizable=True)] == names[-1:][: "gamma" in names]
    random = np.random.RandomState(1)
    values = {p.name: p.get_value() for p in layer.get_params()}
    for p in layer.get_params(trainable=True):
        values[p.name] = np.float32(random.randn(*p.get_value().shape))
        p.set_value(values[p.name])

    def wide(value):
        return np.expand_dims(value, axes)

    def expected(mean, inv_std):
        y = (images - wide(mean)) * wide(inv_std * values.get("gamma", 1))
        return y + wide(values["beta"]) if "beta" in values else y

    X = T.tensor4()
    mean, inv_std = images.mean(axes), 1 / np.sqrt(images.var(axes) + 0.5)
    for use in (None, False, True):
        for update in (None, False, True):
            for deterministic in (False, True):
                layer.mean.set_value(values["mean"])
                layer.inv_std.set_value(values["inv_std"])
                output = layer.get_output_for(
                    X,
                    deterministic=deterministic,
                    batch_norm_use_averages=use,
                    batch_norm_update_averages=update,
                )
                y = theano.function([X], output)(images)
                if deterministic if use is None else use:
                    assert_near(y, expected(values["mean"], values["inv_std"]))
                else:
                    assert_near(y, expected(mean, inv_std))
                moved = 0.25 if (not deterministic if update is None else update) else 0
                assert_near(layer.mean.get_value(), moved * mean + (1 - moved) * values["mean"])
                assert_near(
                    layer.inv_std.get_value(), moved * inv_std + (1 - moved) * values["inv_std"]
                )


def test_lasagne_batch_normalization_needs_sizes():
    message = (
        "BatchNormLayer needs the size of every axis that it does not normalize over; "
        r"given input_shape=\(None, 3\), axes=\(1,\)"
    )
    with pytest.raises(ValueError, match=message):
        binary_net.BatchNormLayer((None, 3), axes=1)


def python(folder, code):
    """Run a script in `folder` as `./reproduce python` does."""
    script = folder / "script.py"
    script.write_text(code)
    path = f"{original_stack.ROOT}:{original_stack.ROOT}/original_stack/site"
    return subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["binary_connect", "shift_based", "binary_net"])
def test_a_module_that_shadows_a_module_of_this_project_is_named(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('an old module')")
    code = f"import binary_net, {name}; print(binary_net.BatchNormLayer, {name}.__file__)"
    done = python(tmp_path, code)
    ours = original_stack.ROOT / f"{name}.py"
    assert done.stderr == (
        f"script: {tmp_path}/{name}.py shadows {ours}, which is used; to use your own, rename it\n"
    )
    assert (done.returncode, done.stdout.split()[-1]) == (0, str(ours))


def test_a_script_keeps_its_own_batch_norm(tmp_path):
    (tmp_path / "batch_norm.py").write_text("own = 'its own'")
    code = "import binary_connect, binary_net, batch_norm; print(batch_norm.own)"
    done = python(tmp_path, code)
    assert (done.returncode, done.stdout) == (0, "its own\n")
    ours = original_stack.ROOT / "batch_norm.py"
    assert done.stderr == (
        f"script: {tmp_path}/batch_norm.py is used, not {ours}; to use this project's, rename "
        "yours\n"
    )


@pytest.mark.slow
def test_script_of_2016_runs_unchanged_and_without_a_warning(tmp_path):
    script = original_stack.ROOT / "tests" / "script_of_2016.py"
    done = python(tmp_path, script.read_text())
    assert (done.returncode, done.stderr) == (0, "")
    errors = [
        float(line.split()[-1][:-1])
        for line in done.stdout.splitlines()
        if line.startswith("  validation error rate:")
    ]
    assert len(errors) == 10
    assert errors[-1] < 25 < errors[0]
    assert (tmp_path / "parameters.npz").exists()


def test_examples():
    assert doctest.testmod(binary_net) == (0, 7)
