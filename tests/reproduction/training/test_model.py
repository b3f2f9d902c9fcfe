import dataclasses

import original_stack

import lasagne
import numpy as np
import pytest
from checks import assert_near
from toy import SMALL, toy

import mnist
from reproduction.training.model import ENSEMBLE_SIZE, Model

RELEASED = dataclasses.replace(
    mnist.RELEASE, num_units=12, batch_size=20, epochs=3, dropout_hidden=0.5
)


def test_an_ensemble_samples_its_networks():
    hp = dataclasses.replace(SMALL, method="stochastic")
    lasagne.random.set_rng(np.random.RandomState(1))
    model = Model(mnist.build_network(hp), hp, "ensemble")
    model.recompute_statistics(toy().train)
    X = toy().test.X
    outputs = [model.outputs(X) for _ in range(2)]
    assert abs(outputs[0] - outputs[1]).max() > 0.01
    assert model.samples == ENSEMBLE_SIZE


def test_an_evaluation_compiles_no_training_and_samples_the_same(monkeypatch):
    hp = dataclasses.replace(SMALL, method="stochastic")
    split, outputs = toy().test, []
    for trains in (True, False):
        lasagne.random.set_rng(np.random.RandomState(1))
        model = Model(mnist.build_network(hp), hp, "ensemble")
        if trains:
            assert model.train_step
        else:
            monkeypatch.setattr("reproduction.training.model.updates_of", None)
        model.recompute_statistics(split)
        outputs.append(model.all_outputs(split, samples=2))
    assert np.array_equal(*outputs)


def test_an_ensemble_is_evaluated_by_its_mean_outputs():
    split = toy().test
    targets = 2 * np.eye(10, dtype=np.float32) - 1
    right = targets[split.y]
    outputs = [-right] + [right] * 7  # the first network is wrong everywhere
    model = Model.__new__(Model)
    model.hp, model.targets, model.samples = SMALL, targets, len(outputs)
    calls = iter(outputs)
    model.outputs = lambda X: next(calls)
    loss, error = model.evaluate(split)
    assert error == 0
    # The mean is .75 of the targets: the loss is .25^2, summed over ten classes.
    assert loss == pytest.approx(10 * 0.25**2)


def test_statistics_of_the_test_weights():
    hp = dataclasses.replace(mnist.RELEASE, num_units=6, batch_size=40)  # five, and 10 images left
    lasagne.random.set_rng(np.random.RandomState(1))
    network = mnist.build_network(hp)
    model = Model(network, hp, "binary")
    split = toy().train
    before = model.parameter_values()
    assert model.renew_statistics(split)
    after = model.parameter_values()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == [name for name in before if name.endswith(("_mean", "_std"))]
    dense, first = lasagne.layers.get_all_layers(network)[1:3]
    binary = np.where(dense.W.get_value() >= 0, dense.H, -dense.H)
    batches = np.split(split.X.reshape(210, 784)[:200] @ binary, 5)
    assert_near(first.mean.get_value()[0], np.mean([b.mean(0) for b in batches], axis=0))
    assert_near(first.std.get_value()[0], np.mean([b.std(0) for b in batches], axis=0))


@pytest.mark.parametrize("hp", [SMALL, dataclasses.replace(RELEASED, method="deterministic")])
def test_statistics_that_belong_to_the_test_weights_are_kept(hp):
    model = Model(mnist.build_network(hp), hp, "binary")
    before = model.parameter_values()
    assert not model.renew_statistics(toy().train)
    after = model.parameter_values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
