import dataclasses
import json

from original_stack.errors import UserError

import numpy as np
import pytest
from toy import toy

import mnist
from reproduction.arrays import npz
from reproduction.commands import evaluate
from reproduction.deploy import trained
from reproduction.training import loop as training
from reproduction.training import run_folder as record

PAPER = dataclasses.replace(mnist.PAPER, num_units=12, batch_size=20, epochs=2, LR_start=0.1)
RELEASE = dataclasses.replace(mnist.RELEASE, num_units=12, batch_size=20, epochs=2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(h) trains on the toy data and returns the run's folder."""
    name = "mnist"  # its network; the toy's images have its shape
    dataset = dataclasses.replace(toy(), name=name)
    monkeypatch.setattr("reproduction.datasets.load", lambda *args, **kwargs: dataset)

    def train(h):
        training.run(dataset, h, mnist.build_network, 7, tmp_path)
        return tmp_path / f"mnist/{h.protocol}-{h.method}/seed-7"

    return train


@pytest.mark.parametrize("h", [PAPER, RELEASE], ids=["paper", "release"])
def test_evaluation_of_a_stochastic_run(run, capsys, h):
    folder = run(h)
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    assert list(found) == ["binary", "binary_own_statistics", "real", "ensemble"]
    assert found["real"] == json.loads((folder / "run.json").read_text())["test_error"]
    assert list(found["ensemble"]) == ["1", "2", "4", "8", "16"]
    own = found["binary_own_statistics"]
    assert (own is None) == (h is PAPER)
    lines = [
        f"binary                 {found['binary']:6.2f}%",
        *([f"binary, own statistics {own:6.2f}%"] if h is RELEASE else []),
        f"real                   {found['real']:6.2f}%",
        f"ensemble of  1         {found['ensemble']['1']:6.2f}%",
    ]
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines
    first = (folder / "evaluation.json").read_text()
    assert evaluate.main([str(folder)]) == 0
    assert (folder / "evaluation.json").read_text() == first


@pytest.mark.parametrize("h", [PAPER, RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("method", ["deterministic", "none"])
def test_evaluation_of_other_methods(run, method, h):
    folder = run(dataclasses.replace(h, method=method))
    assert evaluate.main([str(folder)]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    weights = "binary" if method == "deterministic" else "real"
    assert found[weights] == json.loads((folder / "run.json").read_text())["test_error"]
    assert (found["binary"] is None) == (found["ensemble"] == {}) == (method == "none")
    assert found["binary_own_statistics"] is None


def test_ensembles_average_prefixes_of_one_set_of_draws():
    y = np.array([0, 1])
    samples = np.float32([[[1, 0], [2, 0]]] * 1 + [[[0, 3], [0, 4]]] * 15)

    class Model:
        def all_outputs(self, split, size):
            return samples[:size]

    subset = type("Subset", (), {"X": np.zeros((2, 1)), "y": y})
    # one draw: both 0; two: sums (1, 3), (2, 4): both 1
    assert evaluate._ensembles(Model(), subset) == dict.fromkeys(("1", "2", "4", "8", "16"), 50.0)


def refused(folder, capsys, message):
    assert evaluate.main([str(folder)]) == 2
    assert capsys.readouterr().err == f"evaluate: {message}\n"


def test_runs_that_cannot_be_evaluated(run, tmp_path, capsys):
    folder = run(PAPER)
    capsys.readouterr()
    refused(
        tmp_path,
        capsys,
        f"{tmp_path} has no run.json; name the folder of a finished run on the machine that "
        "trained it, such as results/mnist/paper-stochastic/seed-1234",
    )
    model = (folder / "model.npz").read_bytes()
    damaged = (
        f"{folder} holds a run that is damaged or of another version of this program; train it "
        "anew with --restart"
    )
    (folder / "model.npz").write_bytes(model[:5000])
    refused(folder, capsys, damaged)
    (folder / "model.npz").write_bytes(npz(**{"000_W": np.zeros(3)}))
    assert evaluate.main([str(folder)]) == 2
    assert capsys.readouterr().err.startswith(
        f"evaluate: {folder}/model.npz is of another network: "
    )
    found = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**found, "finished": False}))
    refused(folder, capsys, f"{folder} holds an unfinished run; finish it by its command first")
    (folder / "run.json").write_text("[]")
    refused(folder, capsys, damaged)


def test_full_disk_leaves_what_was_there(run, capsys, monkeypatch):
    folder = run(dataclasses.replace(PAPER, method="none"))
    (folder / "evaluation.json").write_text("what was there")

    def fsync(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    capsys.readouterr()
    refused(
        folder,
        capsys,
        f"cannot write {folder}/evaluation.json: No space left on device; "
        "make it writable or make room",
    )
    assert (folder / "evaluation.json").read_text() == "what was there"
    assert not list(folder.glob(".*"))


def test_a_run_in_use_is_refused(run, capsys):
    folder = run(PAPER)
    capsys.readouterr()
    configuration = json.loads((folder / "run.json").read_text())
    with record.RunFolder(folder, {"seed": configuration["seed"]}):
        refused(
            folder, capsys, f"{folder} is in use by another process; wait until it has finished"
        )
    held = trained.TrainedRun(folder)
    with pytest.raises(UserError, match="is in use by another process; wait for it or choose"):
        record.RunFolder(folder, {}, restart=True)
    assert held.path == folder


def test_official_files_in_another_packing(run, monkeypatch):
    folder = run(PAPER)
    one = trained.TrainedRun(folder)
    found = one.dataset()
    one.run["official_data"] = True
    one.run["data"] = [{"name": "train.gz", "md5": "1" * 32, "official": True}]
    with pytest.raises(UserError, match="files are not those that"):
        one.dataset()
    monkeypatch.setattr(type(found), "official", True)
    assert one.dataset() is found


def test_other_data_are_refused(run, capsys):
    folder = run(PAPER)
    found = json.loads((folder / "run.json").read_text())
    found["data"][0]["md5"] = "1" * 32
    (folder / "run.json").write_text(json.dumps(found))
    capsys.readouterr()
    refused(
        folder,
        capsys,
        f"the mnist files are not those that {folder} was trained on; name their folder with "
        "--data",
    )
    assert trained.TrainedRun(folder).run["data"] == found["data"]
