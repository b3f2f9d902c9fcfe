"""Runs that are unfinished, unreadable, damaged, in use, or trained on other data."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal

from original_stack.command_line import Stopped
from original_stack.errors import UserError

import numpy as np
import pytest
from checks import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy

import mnist
from reproduction.arrays import load_npz, npz
from reproduction.commands import evaluate
from reproduction.datasets.dataset import Split
from reproduction.deploy import export
from reproduction.deploy.trained import EXPECTED, REMEDY, TrainedRun
from reproduction.training import loop, run_folder

HP = dataclasses.replace(
    mnist.PAPER, method="none", num_units=12, batch_size=20, epochs=4, evaluate_every=1
)


def train(results, dataset):
    """The folder of the run."""
    loop.run(dataset, HP, mnist.build_network, 7, results)
    return results / "mnist/paper-none/seed-7"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("results"), dataclasses.replace(toy(), name="mnist"))


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def change(folder, **values):
    """Change values of run.json."""
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **values}))


def test_an_interrupted_run(tmp_path, capsys):
    dataset = dataclasses.replace(toy(), name="mnist")

    class Interrupted:
        """Training images that stop the process in the second epoch."""

        batches = 0

        def __getitem__(self, images):
            self.batches += 1
            if self.batches == 25:  # an epoch takes 10, its batch-norm statistics 11
                os.kill(os.getpid(), signal.SIGTERM)
            return dataset.train.X[images]

    interrupted = Split(Interrupted(), dataset.train.y)
    with pytest.raises(Stopped):
        train(tmp_path, dataclasses.replace(dataset, train=interrupted))
    folder = tmp_path / "mnist/paper-none/seed-7"
    assert (folder / "checkpoint.npz").exists()
    assert not (folder / "model.npz").exists()
    capsys.readouterr()
    for name, command in (("evaluate", evaluate), ("export", export)):
        assert command.main([str(folder)]) == 2
        assert capsys.readouterr().err == (
            f"{name}: {folder} holds an unfinished run; finish it by its command first\n"
        )


def test_folders_without_a_run(tmp_path, folder):
    for path in (tmp_path / "nothing", folder / "run.json", "/dev/null", "a\0b"):
        assert refusal(TrainedRun, path) == f"{path} is not a folder; {EXPECTED}"
    assert refusal(TrainedRun, tmp_path) == f"{tmp_path} has no run.json; {EXPECTED}"
    (folder / "model.npz").unlink()
    assert refusal(TrainedRun, folder) == f"{folder} has no model.npz; {EXPECTED}"


@pytest.mark.parametrize("name", ["run.json", "model.npz"])
def test_a_fifo_instead_of_a_file(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(TrainedRun, folder) == (
        f"{folder}/{name} is not a regular file; give the name of a file"
    )


@pytest.mark.parametrize("name", ["run.json", "model.npz"])
def test_an_unreadable_file_is_not_called_damaged(folder, monkeypatch, name):
    opened = os.open

    def forbidden(path, *arguments, **options):  # a test may run as root, who may read all
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr("os.open", forbidden)
    assert refusal(TrainedRun, folder) == (
        f"cannot read {folder}/{name}: Permission denied; make it readable"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "it is []"),
        ("[" * 10**5, "maximum recursion depth exceeded while decoding a JSON array from a unicod"),
        ("{}", "it has no "),
        ("", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_damaged_record(folder, content, reason):
    (folder / "run.json").write_text(content)
    message = refusal(TrainedRun, folder)
    assert message.startswith(f"{folder}/run.json is damaged ({reason}")
    assert message.endswith(f"); {REMEDY}")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": "7"}, 'seed is "7"'),
        ({"finished": None}, "finished is null"),
        ({"official_data": None}, "official_data is null"),
    ],
)
def test_impossible_values_of_a_record(folder, values, reason):
    change(folder, **values)
    assert refusal(TrainedRun, folder) == f"{folder}/run.json is damaged ({reason}); {REMEDY}"


def test_a_record_of_another_version(folder):
    record = json.loads((folder / "run.json").read_text())
    another = f"{folder}/run.json is of another version of this program ("
    for hyperparameters, reason in (
        ({"num_units": "12"}, 'num_units is "12"'),
        ({"H": True}, "H is true"),
        ({"more": 3}, "Hyperparameters.__init__() got an unexpected keyword argument 'more'"),
    ):
        change(folder, hyperparameters={**record["hyperparameters"], **hyperparameters})
        assert refusal(TrainedRun, folder) == f"{another}{reason}); {REMEDY}"
    change(folder, dataset="other")
    assert refusal(TrainedRun, folder) == f"{another}data set other); {REMEDY}"


def changed_model(folder, change):
    """Write model.npz with its first array changed."""
    arrays = load_npz(folder / "model.npz", "")
    arrays["000_W"] = change(arrays["000_W"])
    (folder / "model.npz").write_bytes(npz(**arrays))


@pytest.mark.parametrize(
    "change",
    [
        lambda W: W.astype(np.float64),
        lambda W: W.astype(int),
        lambda W: W.astype(complex),
        lambda W: W.astype(str),
        lambda W: W * np.float32(np.nan),
        lambda W: W + np.float32(np.inf),
    ],
    ids=["float64", "int", "complex", "text", "nan", "infinity"],
)
def test_parameters_of_another_type(folder, change):
    changed_model(folder, change)
    assert refusal(TrainedRun, folder) == (
        f"{folder}/model.npz is damaged (000_W is not of finite float32); {REMEDY}"
    )


def test_a_damaged_model(folder):
    content = (folder / "model.npz").read_bytes()
    (folder / "model.npz").write_bytes(content[:5000])
    assert refusal(TrainedRun, folder) == (
        f"{folder}/model.npz is damaged (File is not a zip file); {REMEDY}"
    )


def test_parameters_of_another_network(folder):
    changed_model(folder, lambda W: W[:, :5])
    assert refusal(TrainedRun(folder).network) == (
        f"{folder}/model.npz is of another network (000_W: float32 (784, 5), expected float32 "
        f"(784, 12)); {REMEDY}"
    )
    arrays = load_npz(folder / "model.npz", "")
    del arrays["000_W"]
    (folder / "model.npz").write_bytes(npz(**arrays))
    assert refusal(TrainedRun(folder).network) == (
        f"{folder}/model.npz is of another network (000_W: no such array, expected float32 "
        f"(784, 12)); {REMEDY}"
    )


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_damage_is_a_user_error_at_most(finished, tmp_path_factory, data):
    """Bytes of model.npz, or a value of run.json, are replaced."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("damage") / "run")
    if data.draw(st.booleans()):
        content = bytearray((folder / "model.npz").read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
        (folder / "model.npz").write_bytes(content)
    else:
        record = json.loads((folder / "run.json").read_text())
        place = data.draw(st.sampled_from([record, record["hyperparameters"]]))
        value = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(value | st.just([]))
        (folder / "run.json").write_text(json.dumps(record))
    with contextlib.suppress(UserError):
        TrainedRun(folder).network()


def test_a_run_in_use_is_refused(folder):
    seed = json.loads((folder / "run.json").read_text())["seed"]
    with run_folder.RunFolder(folder, {"seed": seed}):
        assert refusal(TrainedRun, folder) == (
            f"{folder} is in use by another process; wait until it has finished"
        )
    held = TrainedRun(folder)
    with pytest.raises(UserError, match="is in use by another process; wait for it or choose"):
        run_folder.RunFolder(folder, {}, restart=True)
    assert held.path == folder


def test_data_of_the_run(folder, monkeypatch):
    dataset = dataclasses.replace(toy(), name="mnist")
    monkeypatch.setattr("reproduction.datasets.load", lambda *arguments, **options: dataset)
    trained = TrainedRun(folder)
    assert trained.dataset() is dataset
    trained.record["data"][0]["md5"] = "1" * 32
    refused = (
        f"the mnist files are not those that {folder} was trained on; name their folder with --data"
    )
    assert refusal(trained.dataset) == refused
    trained.record["official_data"] = True
    assert refusal(trained.dataset) == refused
    monkeypatch.setattr(type(dataset), "official", True)  # in another packing
    assert trained.dataset() is dataset
