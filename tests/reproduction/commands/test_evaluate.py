import dataclasses
import json

import lasagne
import numpy as np
import pytest
from toy import toy

import binary_connect
import mnist
from reproduction.commands import evaluate
from reproduction.training import loop as training

PAPER = dataclasses.replace(mnist.PAPER, num_units=12, batch_size=20, epochs=2, LR_start=0.1)
RELEASE = dataclasses.replace(mnist.RELEASE, num_units=12, batch_size=20, epochs=2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(hp) trains on the toy data and returns the folder of the run."""
    name = "mnist"  # its network; the toy's images have its shape
    dataset = dataclasses.replace(toy(), name=name)
    monkeypatch.setattr("reproduction.datasets.load", lambda *args, **kwargs: dataset)

    def train(hp):
        training.run(dataset, hp, mnist.build_network, 7, tmp_path)
        return tmp_path / f"mnist/{hp.protocol}-{hp.method}/seed-7"

    return train


@pytest.mark.parametrize("hp", [PAPER, RELEASE], ids=["paper", "release"])
def test_evaluation_of_a_stochastic_run(run, capsys, hp):
    folder = run(hp)
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert list(evaluation) == ["binary", "binary_own_statistics", "real", "ensemble"]
    assert evaluation["real"] == json.loads((folder / "run.json").read_text())["test_error"]
    assert list(evaluation["ensemble"]) == ["1", "2", "4", "8", "16"]
    own = evaluation["binary_own_statistics"]
    assert (own is None) == (hp is PAPER)
    expected = {
        "binary": evaluation["binary"],
        **({"binary, recomputed statistics": own} if hp is RELEASE else {}),
        "real": evaluation["real"],
        "ensemble of  1": evaluation["ensemble"]["1"],
    }
    lines = [f"{weights:29} {error:6.2f}%" for weights, error in expected.items()]
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines
    first = (folder / "evaluation.json").read_text()
    assert evaluate.main([str(folder)]) == 0
    assert (folder / "evaluation.json").read_text() == first


@pytest.mark.parametrize("hp", [PAPER, RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("method", ["deterministic", "none"])
def test_evaluation_of_other_methods(run, method, hp):
    folder = run(dataclasses.replace(hp, method=method))
    assert evaluate.main([str(folder)]) == 0
    evaluation = json.loads((folder / "evaluation.json").read_text())
    weights = "binary" if method == "deterministic" else "real"
    assert evaluation[weights] == json.loads((folder / "run.json").read_text())["test_error"]
    assert (evaluation["binary"] is None) == (evaluation["ensemble"] == {}) == (method == "none")
    assert evaluation["binary_own_statistics"] is None


def test_ensembles_average_prefixes_of_one_set_of_samples():
    y = np.array([0, 0])
    samples = np.float32([[[1, 0], [2, 0]]] * 1 + [[[0, 3], [0, 4]]] * 15)

    class Model:
        def all_outputs(self, split, size):
            return samples[:size]

    split = type("Split", (), {"X": np.zeros((2, 1)), "y": y})
    # One sample: both images are of class 0. Two: the sums are (1, 3) and (2, 4), both of class 1.
    expected = {"1": 0.0, "2": 100.0, "4": 100.0, "8": 100.0, "16": 100.0}
    assert evaluate._ensembles(Model(), split) == expected


def test_kernels_repeat_up_to_their_sign():
    kernel = np.float32([[1, -1, 1], [1, 1, -1], [-1, 1, 0]])  # zero is +1
    other = -np.float32(np.eye(3) + 0.5)
    W = np.stack([np.stack([kernel, other, -other, other])] * 2, axis=1)
    assert evaluate.unique_kernels(W) == 50
    W[1, 1] = -3 * W[0, 1]  # the first kernel's inverse at another scale; its 0 is +1 in both
    W[1, 1, 2, 2] = -1
    W[2, 1], W[3, 1] = W[0, 1], W[0, 1]
    assert evaluate.unique_kernels(W) == 37.5  # two of four in one map, one of four in the other
    assert evaluate.unique_kernels(W[:1]) == 100


def test_only_convolutions_have_kernels():
    W = np.float32(np.ones((2, 3, 3, 3)))
    layer = lasagne.layers.InputLayer((None, 3, 4, 4))
    network = binary_connect.Conv2DLayer(layer, 2, (3, 3), pad=1, W=W)
    network = binary_connect.DenseLayer(network, 3)
    assert evaluate.repetitions(network) == [50.0]


def test_a_full_disk_leaves_the_old_evaluation(run, capsys, monkeypatch):
    folder = run(dataclasses.replace(PAPER, method="none"))
    (folder / "evaluation.json").write_text("what was there")

    def fsync(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"evaluate: cannot write {folder}/evaluation.json: No space left on device; make it "
        "writable or make room\n"
    )
    assert (folder / "evaluation.json").read_text() == "what was there"
    assert not list(folder.glob(".*"))
