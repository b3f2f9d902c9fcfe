import dataclasses
import json
import re
import subprocess
import sys

import original_stack

import numpy as np
import pytest

import binary_connect
import cifar10
import mnist
import svhn
from reproduction.training.hyperparameters import TEST_WEIGHTS

TABLE1 = [hp for hp in cifar10.ROWS if "optimizer" in hp.choices]


def test_the_names_of_test_weights_equal_those_of_binary_connect():
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


@pytest.mark.parametrize(
    ("hp", "changes", "reason"),
    [
        (mnist.PAPER, {"num_units": 0}, "num_units is 0"),
        (mnist.PAPER, {"num_units": 10**9}, "num_units is 1000000000"),
        (mnist.PAPER, {"num_units": "12"}, 'num_units is "12"'),
        (mnist.PAPER, {"batch_size": True}, "batch_size is true"),
        (mnist.PAPER, {"batch_size": 20.0}, "batch_size is 20.0"),
        (mnist.PAPER, {"H": "glorot"}, 'H is "glorot"'),
        (mnist.PAPER, {"H": float("nan")}, "H is NaN"),
        (mnist.PAPER, {"H": 0}, "H is 0"),
        (mnist.PAPER, {"LR_stages": 1}, "LR_stages is 1"),
        (mnist.PAPER, {"dropout_in": 1.0}, "dropout_in is 1.0"),
        (mnist.PAPER, {"method": "binary"}, 'method is "binary"'),
        (mnist.PAPER, {"optimizer": None}, "optimizer is null"),
        (mnist.PAPER, {"shift_based": 1}, "shift_based is 1"),
        (cifar10.PAPER, {"width": 1e308}, "width is 1e+308"),
        (cifar10.PAPER, {"train_size": 0}, "train_size is 0"),
        (svhn.PAPER, {"lcn": "none"}, 'lcn is "none"'),
    ],
)
def test_values_that_a_field_cannot_have(hp, changes, reason):
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        dataclasses.replace(hp, **changes)


def test_hyperparameters_do_not_load_theano():
    code = (
        "import sys; import reproduction.training.hyperparameters, reproduction.training.records, "
        "reproduction.training.run_folder; sys.exit('theano' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=original_stack.ROOT).returncode == 0


def test_an_epoch_has_full_batches_only():
    assert cifar10.PAPER.steps(45000) == 900
    assert svhn.PAPER.steps(598388) == 11967
    assert mnist.PAPER.steps(199) == 0
