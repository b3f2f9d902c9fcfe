import hashlib
import json

import numpy as np
import pytest
from records import add_run

from reproduction.experiments import ROWS
from reproduction.report.networks import networks_page, read_networks
from reproduction.report.runs import read_runs

MANIFEST = {
    "dataset": "mnist",
    "protocol": "paper",
    "method": "stochastic",
    "test_error": 1.25,
    "layers": [{"shape": [784, 10]}, {"shape": [10, 10]}],
}


def deploy(folder, manifest=MANIFEST):
    """Write a deployed.npz of 7,940 weights in 993 bytes."""
    weights = {"weights0": np.zeros(980, np.uint8), "weights1": np.zeros(13, np.uint8)}
    np.savez(folder / "deployed.npz", manifest=json.dumps(manifest), **weights)
    return (folder / "deployed.npz").read_bytes()


def page(results):
    runs, _ = read_runs(results, ROWS)
    networks, notes = read_networks(results, runs)
    return networks_page(runs, networks), notes


def test_card_of_a_network(tmp_path):
    evaluation = {"binary": 1.3, "binary_own_statistics": 1.25, "real": 1.2}
    evaluation["ensemble"] = {"1": 1.5, "16": 1.21}
    folder = add_run(tmp_path)
    add_run(tmp_path, seed=2)  # without a network
    content = deploy(folder)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    text, notes = page(tmp_path)
    assert notes == []
    assert "from 2 finished runs, 1 of which have a deployed.npz" in text
    assert text.split("| --- | --- |\n")[1].splitlines() == [
        "| data | MNIST |",
        "| row | protocol paper, method stochastic, seed 1 |",
        "| setting of the run | as published |",
        "| test error of this file | 1.25 % |",
        "| test error with binary weights | 1.30 % |",
        "| test error with binary weights, recomputed statistics | 1.25 % |",
        "| test error with real weights | 1.20 % |",
        "| test error with an ensemble of 16 | 1.21 % |",
        "| weights | 7,940, 1 bit each |",
        f"| size of the file | {len(content):,} bytes; the weights as 32-bit floats would have "
        "31,760 |",
        f"| SHA-256 | `{hashlib.sha256(content).hexdigest()}` |",
        "| trained by | commit 0123456789ab |",
        "| run it | `./reproduce predict results/mnist/paper-stochastic/seed-1/deployed.npz "
        "IMAGES...` |",
    ]


def test_card_of_a_run_that_was_not_evaluated(tmp_path):
    deploy(add_run(tmp_path, epochs=5, epochs_done=5, git_dirty=True))
    text, _ = page(tmp_path)
    assert "| setting of the run | 5 epochs instead of 1,000 |" in text
    assert "| test error with real weights | 1.20 % |" in text
    assert "| trained by | commit 0123456789ab with changes |" in text


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({**MANIFEST, "method": "none"}, "a network of row mnist, paper, none"),
        ({**MANIFEST, "test_error": 101}, "test_error is 101"),
        ({**MANIFEST, "layers": [{"shape": [0, 10]}]}, 'layers is [{"shape": [0, 10]}]'),
        ({**MANIFEST, "layers": MANIFEST["layers"] * 2}, "'weights2'"),
        ({}, "it has no dataset"),
    ],
)
def test_a_network_that_cannot_be_used_is_noted(tmp_path, manifest, reason):
    deploy(add_run(tmp_path), manifest)
    text, notes = page(tmp_path)
    assert "## " not in text
    assert notes == [
        f"mnist/paper-stochastic/seed-1/deployed.npz is damaged ({reason}); make it again from its "
        "run with ./reproduce export"
    ]
