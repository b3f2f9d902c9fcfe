import dataclasses

import original_stack

import lasagne
import pytest

import mnist
from reproduction.experiments import EXPERIMENTS
from reproduction.published import rows


def test_published_rows_with_a_protocol_are_experiments():
    published = {(r["dataset"], r["protocol"], r["method"]): r for r in rows() if r["protocol"]}
    ours = {
        (name, hp.protocol, hp.method): hp
        for name, experiment in EXPERIMENTS.items()
        for hp in experiment.rows
        if name != "digits"
    }
    assert published.keys() <= ours.keys()
    for key, row in published.items():
        assert not row["epochs"] or int(row["epochs"]) == ours[key].epochs


def test_rows_of_an_experiment_differ_in_protocol_or_method():
    for experiment in EXPERIMENTS.values():
        for hp in experiment.rows:
            assert experiment.row(hp.protocol, hp.method) is hp
            assert type(hp) is experiment.hyperparameters
    assert EXPERIMENTS["digits"].row("paper", "dropout") is mnist.ROWS[3]
    assert EXPERIMENTS["svhn"].row("paper", "dropout") is None


@pytest.mark.parametrize(("name", "units"), [("mnist", 1024), ("cifar10", 1024), ("svhn", 1024)])
def test_networks(name, units):
    experiment = EXPERIMENTS[name]
    hp = dataclasses.replace(experiment.row("paper", "stochastic"))
    layers = lasagne.layers.get_all_layers(experiment.build_network(hp))
    dense = [layer.num_units for layer in layers if isinstance(layer, lasagne.layers.DenseLayer)]
    assert dense[-2:] == [units, 10]
