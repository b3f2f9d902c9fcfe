import dataclasses
import functools
import types

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

import cifar10
import mnist
import svhn
from reproduction.datasets import preprocessing
from reproduction.datasets.dataset import Dataset, Split
from reproduction.deploy import c_source, export, onnx_graph, predict

MLP = {"num_units": 12, "batch_size": 20}
CNN = {"filters": 2, "units": 9, "batch_size": 20}
SVHN = {"stochastic": "released", "deterministic": "released", "none": "all-channels"}  # lcn
NETWORKS = [
    *(("mnist", dataclasses.replace(hp, **MLP), mnist.build_network) for hp in mnist.ROWS[:8]),
    *(
        ("cifar10", dataclasses.replace(hp, **CNN), cifar10.build_network)
        for hp in cifar10.ROWS[:3]
    ),
    *(
        ("svhn", dataclasses.replace(hp, lcn=SVHN[hp.method], **CNN), cifar10.build_network)
        for hp in svhn.ROWS[:3]
    ),
]


@pytest.fixture(autouse=True)
def zca_of_few_images(monkeypatch):
    """The same whitening by the images' singular vectors: the decomposition of the covariance of
    all pixels takes ten seconds."""

    def fit_zca(images, filter_bias=0.1):
        rows = images.reshape(len(images), -1).astype(np.float64)
        mean = rows.mean(axis=0)
        _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
        scales = 1 / np.sqrt(values**2 / len(rows) + filter_bias) - 1 / np.sqrt(filter_bias)
        matrix = directions.T * scales @ directions
        return mean, matrix + np.eye(len(mean)) / np.sqrt(filter_bias)

    monkeypatch.setattr(preprocessing, "fit_zca", fit_zca)


@functools.cache
def sets(name, lcn=None):
    """The data set of random pixels as trained on, the same with inputs="signed", and the pixels of
    the test set."""
    rng = np.random.RandomState(0)
    shape = (1, 28, 28) if name == "mnist" else (3, 32, 32)
    pixels = [rng.randint(0, 256, (n, *shape)).astype(np.uint8) for n in (60, 20, 230)]
    if name == "mnist":
        inputs = [preprocessing.center(part / np.float32(255)) for part in pixels]
    elif name == "cifar10":
        trained = preprocessing.global_contrast_normalize(np.concatenate(pixels[:2]), 55.0)
        zca = preprocessing.fit_zca(trained)
        contrast = [preprocessing.global_contrast_normalize(part, 55.0) for part in pixels]
        inputs = [preprocessing.whiten(part, *zca) for part in contrast]
    else:
        contrast = [preprocessing.global_contrast_normalize(part) for part in pixels]
        channels = None if lcn == "all-channels" else [0]
        inputs = [preprocessing.local_contrast_normalize(part, channels) for part in contrast]

    def dataset(parts):
        y = np.arange(230) % 10
        return Dataset(name, *(Split(X, y[: len(X)]) for X in parts), files=(), preprocessing="")

    signed = [np.float32(part) * np.float32(2) - np.float32(255) for part in pixels]
    return dataset(inputs), dataset(signed), pixels[2]


def trained_run(hp, build_network, dataset):
    """The part of a run that export needs, with random parameters and the images' statistics."""

    def network():
        lasagne.random.set_rng(np.random.RandomState(1))
        output = build_network(hp)
        rng = np.random.RandomState(2)
        for parameter in lasagne.layers.get_all_params(output):
            if parameter.name in ("b", "beta", "gamma"):
                parameter.set_value(np.float32(rng.randn(*parameter.get_value().shape)))
        X = T.tensor4()
        forward = theano.function([X], lasagne.layers.get_output(output, X))
        for _ in range(30):
            forward(dataset.train.X)
        return output

    record = {"dataset": dataset.name, "protocol": hp.protocol, "method": hp.method, "seed": 1}
    return types.SimpleNamespace(hp=hp, record=record, network=network)


@pytest.mark.parametrize(
    ("name", "hp", "build_network"),
    NETWORKS,
    ids=[f"{name}-{hp.protocol}-{hp.method}" for name, hp, _ in NETWORKS],
)
def test_round_trip(tmp_path, capsys, name, hp, build_network):
    dataset, raw, pixels = sets(name, getattr(hp, "lcn", None))
    made, unequal = export.export(trained_run(hp, build_network, dataset), dataset, raw)
    assert unequal == 0
    classes = made.predict(pixels)
    assert np.ptp(made.outputs(pixels), axis=0).max() > 0.1  # the images make a difference
    assert made.manifest["test_error"] == pytest.approx(100 * np.mean(classes != dataset.test.y))
    (tmp_path / "file.npz").write_bytes(made.content())
    np.save(tmp_path / "images.npy", pixels)
    assert predict.main([str(tmp_path / "file.npz"), str(tmp_path / "images.npy")]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(c) for c in classes]
    whole, stored = made.sizes()
    assert printed.err == (
        f"weights: {whole:,} bytes as float32, {stored:,} here, {whole / stored:.1f} times less\n"
    )
    shapes = [layer["shape"] for layer in made.manifest["layers"]]
    number = sum(int(np.prod(shape)) for shape in shapes)
    bits = sum(-(-int(np.prod(shape)) // 8) for shape in shapes)
    assert (whole, stored) == (4 * number, bits if hp.binary else 4 * number)


def test_command(tmp_path, capsys, monkeypatch):
    hp = dataclasses.replace(mnist.PAPER, method="deterministic", **MLP)
    dataset, raw, pixels = sets("mnist")
    run = trained_run(hp, mnist.build_network, dataset)
    run.path, run.dataset = tmp_path, lambda data: dataset
    monkeypatch.setattr(export, "TrainedRun", lambda path: run)
    monkeypatch.setattr("reproduction.datasets.load", lambda *arguments, **options: raw)

    def make(graph, images):
        outputs = predict.load(tmp_path / "deployed.npz").outputs(images)
        return b"qonnx" if graph.description["qonnx"] else b"onnx file", outputs

    monkeypatch.setattr(onnx_graph, "make", make)
    files = {f"--{name}": str(tmp_path / name) for name in ("c", "onnx", "qonnx")}
    assert export.main([str(tmp_path), *(part for item in files.items() for part in item)]) == 0
    assert (tmp_path / "onnx").read_bytes() == b"onnx file"
    assert (tmp_path / "qonnx").read_bytes() == b"qonnx"
    deployed = predict.load(tmp_path / "deployed.npz")
    source = tmp_path / "c/mnist_paper_deterministic.c"
    outputs = deployed.outputs(pixels)
    difference = np.abs(c_source.scores_of(source, deployed, pixels) - outputs).max()
    error = 100 * np.mean(outputs.argmax(axis=1) != dataset.test.y)
    classes_equal = "classes equal: 230 of 230 test images"
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/deployed.npz: test error {error:.2f}% with the weights exported",
        "classes equal to Theano's: 230 of 230 test images",
        "weights: 39,264 bytes as float32, 1,227 here, 32.0 times less",
        f"{source}: scores differ by at most {difference:.1e}, {classes_equal}",
        f"{tmp_path}/onnx: 9 bytes; scores differ by at most 0.0e+00, {classes_equal}",
        f"{tmp_path}/qonnx: 5 bytes; scores differ by at most 0.0e+00, {classes_equal}",
    ]
