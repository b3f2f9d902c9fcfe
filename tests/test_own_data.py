"""The user's own data, from a file to predictions: trained, resumed, evaluated and exported."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

import cifar10
import mnist
import svhn
from reproduction import arrays
from reproduction.commands import evaluate
from reproduction.deploy import export, predict
from reproduction.experiments import ROWS
from reproduction.report.runs import read_runs
from reproduction.training import command_line, loop

pytestmark = [pytest.mark.usefixtures("no_other_data"), pytest.mark.slow]
SMALL = {"num_units": 12, "batch_size": 20, "LR_start": 0.1}
PLACES = [np.s_[2:26, 12:16], np.s_[12:16, 2:26], np.s_[2:26:5]]  # of the ink of three letters


def letters(n, shape):
    """Images of three letters in noise, and their labels."""
    rng = np.random.RandomState(n)
    labels = np.arange(n) % 3
    images = rng.randint(0, 60, (n, *shape)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[PLACES[label]] += 150
    return images, labels


def save(folder, shape=(28, 28)):
    """The file, and the images and labels of its test set."""
    path = folder / "letters.npz"
    train, test = letters(120, shape), letters(33, shape)
    path.write_bytes(
        arrays.npz(
            train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1]
        )
    )
    return path, *test


def train(page, hp, path, results, *options):
    options = ["--data", path, "--results", results, "--epochs", "3", "--seed", "7", *options]
    name = page.__name__
    build_network = (cifar10 if page is svhn else page).build_network
    return command_line.main(name, [hp], build_network, list(map(str, options)))


def interrupt(monkeypatch):
    """The second epoch is interrupted."""
    epochs, train_epoch = [], loop._train_epoch

    def interrupted(*arguments):
        epochs.append(None)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(loop, "_train_epoch", interrupted)


@pytest.mark.parametrize("row", [mnist.PAPER, mnist.BNN_THEANO], ids=["floats", "bnn"])
def test_letters(tmp_path, capsys, monkeypatch, row):
    method = "bnn" if row is mnist.BNN_THEANO else "deterministic"
    hp = dataclasses.replace(row, method=method, **SMALL)
    path, images, labels = save(tmp_path)
    folder = tmp_path / f"results/mnist-letters/{hp.protocol}-{method}/seed-7"
    interrupt(monkeypatch)
    assert train(mnist, hp, path, tmp_path / "results") == 128 + 2
    assert train(mnist, hp, path, tmp_path / "results", "--resume") == 0
    record = json.loads((folder / "run.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"mnist, {hp.protocol}, {method}, seed 7: test error {record['test_error']:.2f}% with "
        f"binary weights at epoch {record['best_epoch']} of 3 (validation error "
        f"{record['valid_error']:.2f}%); not comparable with a published error: unofficial data "
        "(letters.npz)"
    )
    assert record["hyperparameters"]["classes"] == 3
    assert (record["train_images"], record["test_images"]) == (100, 33)
    (run,), notes = read_runs(tmp_path / "results", ROWS)
    assert (run.departures[0], notes) == ("unofficial data (letters.npz)", [])

    assert evaluate.main([str(folder), "--data", str(path)]) == 0
    errors = json.loads((folder / "evaluation.json").read_text())
    assert errors["binary"] == record["test_error"]
    capsys.readouterr()

    assert export.main([str(folder), "--data", str(path), "--c", str(tmp_path / "c")]) == 0
    assert "equal to Theano's" in capsys.readouterr().out
    name = f"mnist_letters_{hp.protocol.replace('-', '_')}_{method}"
    program, raw = tmp_path / "classify", tmp_path / "raw"
    source = tmp_path / f"c/{name}.c"
    subprocess.run(["gcc", "-std=c99", f"-D{name}_MAIN", source, "-o", program], check=True)
    raw.write_bytes(images.tobytes())
    in_c = subprocess.run([program, raw], capture_output=True, text=True, check=True).stdout

    np.save(tmp_path / "images.npy", images)
    assert predict.main([str(folder / "deployed.npz"), str(tmp_path / "images.npy")]) == 0
    classes = capsys.readouterr().out
    assert in_c == classes
    wrong = np.mean(np.array(classes.split(), int) != labels)
    assert 100 * wrong == pytest.approx(record["test_error"])
    Image.fromarray(images[1]).save(tmp_path / "I.png")
    assert predict.main([str(folder / "deployed.npz"), str(tmp_path / "I.png"), "--scores"]) == 0
    _, label, *scores = capsys.readouterr().out.split()
    assert label == classes.split()[1]
    assert len(scores) == 3


@pytest.mark.parametrize("page", [cifar10, svhn])
def test_colors(tmp_path, capsys, page):
    """CIFAR-10 by method bnn, which needs no whitening."""
    method = "bnn" if page is cifar10 else "deterministic"
    hp = next(hp for hp in page.ROWS if hp.method == method)
    hp = dataclasses.replace(hp, filters=2, units=9, batch_size=20)
    path, images, labels = save(tmp_path, (32, 32, 3))
    name = f"{page.__name__}-letters"
    folder = tmp_path / f"{name}/{hp.protocol}-{method}/seed-7"
    assert train(page, hp, path, tmp_path) == 0
    assert evaluate.main([str(folder), "--data", str(path)]) == 0
    capsys.readouterr()
    assert export.main([str(folder), "--data", str(path)]) == 0
    assert "equal to Theano's" in capsys.readouterr().out
    deployed = predict.load(folder / "deployed.npz")
    assert deployed.manifest["dataset"] == name
    assert deployed.outputs(images.transpose(0, 3, 1, 2)).shape == (33, 3)


def test_other_data_is_refused(tmp_path, capsys):
    hp = dataclasses.replace(mnist.PAPER, method="none", **SMALL)
    path, *_ = save(tmp_path)
    folder = tmp_path / "mnist-letters/paper-none/seed-7"
    assert train(mnist, hp, path, tmp_path) == 0
    content = arrays.load_npz(path, "")
    content["test_labels"][:2] = 1
    other = tmp_path / "other/letters.npz"
    other.parent.mkdir()
    other.write_bytes(arrays.npz(**content))
    capsys.readouterr()
    assert train(mnist, hp, other, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mnist: {folder} holds a run with data ")
    assert error.endswith(
        "; use the same options, another --results, or discard it with --restart\n"
    )
    for options in ([], ["--data", str(tmp_path)]):
        assert evaluate.main([str(folder), *options]) == 2
        assert capsys.readouterr().err == (
            f"evaluate: {folder} was trained on letters.npz; name this file with --data\n"
        )
    assert export.main([str(folder), "--data", str(other)]) == 2
    assert capsys.readouterr().err == (
        f"export: the mnist files are not those that {folder} was trained on; name their file with "
        "--data\n"
    )


def test_too_few_images(tmp_path, capsys):
    path, *_ = save(tmp_path)
    assert train(mnist, mnist.PAPER, path, tmp_path) == 2
    assert capsys.readouterr().err == (
        "mnist: 100 training images do not fill a batch of 200, so nothing would be trained; give "
        "more\n"
    )
