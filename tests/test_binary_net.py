import doctest
import os
import subprocess
import sys

import original_stack

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

import binary_connect
import binary_net


@pytest.fixture(params=["1", "0"], ids=["fused", "plain"])
def graph(request, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_FUSED", request.param)


def values_and_gradient(unit, x):
    variable = T.vector()
    y = unit(variable)
    return theano.function([variable], [y, theano.grad(y.sum(), variable)])(x)


def test_binary_tanh_unit_is_that_of_2016(golden):
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


def test_stochastic_sign_draws_with_the_gradient_of_one_draw(graph):
    """The gradient is that of the loss at the values drawn in the same evaluation."""
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
    errors = iter([0.5, 0.25, 0.75, 0.25, 0.5])

    def train_fn(X, y, LR):
        seen.extend(X[:, 0])
        network.W.set_value(np.full((1, 1), LR, "float32"))
        return 1.0

    def val_fn(X, y):
        return 2.0, next(errors) if X[0, 0] < 0 else 0.125

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


def test_lasagne_has_batch_normalization():
    assert lasagne.layers.BatchNormLayer.__name__ == "LasagneBatchNormLayer"
    with pytest.raises(AttributeError, match="module 'lasagne.layers' has no attribute 'None_'"):
        lasagne.layers.None_  # noqa: B018


@pytest.mark.slow
def test_script_of_2016_runs_unchanged_and_without_a_warning(tmp_path):
    script = original_stack.ROOT / "tests" / "script_of_2016.py"
    done = subprocess.run(
        [sys.executable, script],
        env={
            **os.environ,
            "PYTHONPATH": f"{original_stack.ROOT}:{original_stack.ROOT}/original_stack/site",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
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
    assert doctest.testmod(binary_net) == (0, 3)
