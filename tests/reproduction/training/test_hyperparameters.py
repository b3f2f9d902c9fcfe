import dataclasses
import json

import original_stack

import numpy as np
import pytest

import binary_connect
import cifar10
import mnist
from reproduction.training.hyperparameters import TEST_WEIGHTS

TABLE1 = [hp for hp in cifar10.ROWS if "optimizer" in hp.choices]


def test_kinds_of_test_weights_are_the_methods():
    assert TEST_WEIGHTS == binary_connect.TEST_WEIGHTS


def test_learning_rate_decays_by_one_factor_to_the_final_rate():
    rates = [mnist.PAPER.learning_rate(epoch) for epoch in (1, 501, 1001)]
    np.testing.assert_allclose(rates, [0.3, np.sqrt(0.3 * 0.01), 0.01], rtol=1e-12)


def test_learning_rate_is_halved_in_stages():
    rates = [mnist.BNN_TORCH7.learning_rate(epoch) for epoch in (1, 10, 11, 191, 200)]
    np.testing.assert_allclose(rates, [2**-10, 2**-10, 2**-11, 2**-29, 2**-29], rtol=1e-12)
    compressed = dataclasses.replace(mnist.BNN_TORCH7, epochs=40)
    rates = [compressed.learning_rate(epoch) for epoch in (1, 2, 3, 40)]
    np.testing.assert_allclose(rates, [2**-10, 2**-10, 2**-11, 2**-29], rtol=1e-12)


def test_rows_are_named_after_what_chooses_them():
    for hp in TABLE1:
        assert hp.protocol == "table1-{optimizer}-{lr_scaling}".format(**hp.choices)
        assert hp.LR_start / hp.LR_fin == pytest.approx(1500)


@pytest.mark.parametrize("hp", TABLE1, ids=lambda hp: hp.protocol)
def test_learning_rates_of_table_1_are_the_best_on_record(hp):
    tried = {}
    for path in (original_stack.ROOT / "results" / "tuning").rglob("run.json"):
        run = json.loads(path.read_text())
        if run["protocol"] == hp.protocol and run["finished"]:
            tried[run["valid_error"]] = run["hyperparameters"]["LR_start"]
    assert tried[min(tried)] == hp.LR_start
