import dataclasses
import gzip
import json
import struct
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
from reproduction.deploy import export
from reproduction.deploy import network as deployed

MLP = {"num_units": 12, "batch_size": 20}
CNN = {"filters": 2, "units": 9, "batch_size": 20}
SVHN = {"stochastic": "released", "deterministic": "released", "none": "all-channels"}  # lcn
NETWORKS = [
    *(("mnist", dataclasses.replace(h, **MLP), mnist.build_network) for h in mnist.ROWS[:8]),
    *(("cifar10", dataclasses.replace(h, **CNN), cifar10.build_network) for h in cifar10.ROWS[:3]),
    *(
        ("svhn", dataclasses.replace(h, lcn=SVHN[h.method], **CNN), cifar10.build_network)
        for h in svhn.ROWS[:3]
    ),
]


def sets(name, h):
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
        channels = None if h.lcn == "all-channels" else [0]
        inputs = [preprocessing.local_contrast_normalize(part, channels) for part in contrast]

    def dataset(parts):
        y = np.arange(230) % 10
        return Dataset(name, *(Split(X, y[: len(X)]) for X in parts), files=(), preprocessing="")

    signed = [np.float32(part) * np.float32(2) - np.float32(255) for part in pixels]
    return dataset(inputs), dataset(signed), pixels[2]


def trained_run(h, build_network, dataset):
    """What export needs of a run, with random parameters and running statistics of the images."""

    def network():
        lasagne.random.set_rng(np.random.RandomState(1))
        output = build_network(h)
        rng = np.random.RandomState(2)
        for parameter in lasagne.layers.get_all_params(output):
            if parameter.name in ("b", "beta", "gamma"):
                parameter.set_value(np.float32(rng.randn(*parameter.get_value().shape)))
        X = T.tensor4()
        forward = theano.function([X], lasagne.layers.get_output(output, X))
        for _ in range(30):
            forward(dataset.train.X)
        return output

    run = {"dataset": dataset.name, "protocol": h.protocol, "method": h.method, "seed": 1}
    return types.SimpleNamespace(h=h, run=run, network=network)


@pytest.mark.parametrize(
    ("name", "h", "build_network"),
    NETWORKS,
    ids=[f"{name}-{h.protocol}-{h.method}" for name, h, _ in NETWORKS],
)
def test_round_trip(tmp_path, capsys, name, h, build_network):
    dataset, raw, pixels = sets(name, h)
    made, unequal = export.export(trained_run(h, build_network, dataset), dataset, raw)
    assert unequal == 0
    classes = made.predict(pixels)
    assert np.ptp(made.outputs(pixels), axis=0).max() > 0.1  # the images make a difference
    assert made.manifest["test_error"] == pytest.approx(100 * np.mean(classes != dataset.test.y))
    (tmp_path / "file.npz").write_bytes(made.content())
    np.save(tmp_path / "images.npy", pixels)
    assert deployed.main([str(tmp_path / "file.npz"), str(tmp_path / "images.npy")]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(c) for c in classes]
    whole, stored = made.sizes()
    assert printed.err == (
        f"weights: {whole:,} bytes as float32, {stored:,} here, {whole / stored:.1f} times less\n"
    )
    shapes = [layer["shape"] for layer in made.manifest["layers"]]
    number = sum(int(np.prod(shape)) for shape in shapes)
    bits = sum(-(-int(np.prod(shape)) // 8) for shape in shapes)
    assert (whole, stored) == (4 * number, bits if h.binary else 4 * number)


@pytest.fixture
def file():
    """(manifest, arrays) of a small file: 784 inputs, 10 units, weights +1, -1, +1, ..."""
    weights = np.packbits(np.arange(7840) % 2 == 0)
    layer = {"kind": "dense", "shape": [784, 10], "packed": True, "pool": False, "rectify": False}
    manifest = {"format": "binaryconnect", "version": 1, "preprocessing": "centred"}
    manifest.update(image=[1, 28, 28], layers=[layer])
    arrays = {"weights0": weights, "mean": np.zeros((1, 28, 28), np.float32)}
    arrays.update(scale0=np.full(10, 2, np.float32), shift0=np.arange(10, dtype=np.float32))
    return manifest, arrays


def written(path, manifest, arrays):
    np.savez(path, manifest=json.dumps(manifest), **arrays)
    return path


def test_outputs_by_hand(tmp_path, file):
    network = deployed.load(written(tmp_path / "file.npz", *file))
    images = np.zeros((1, 1, 28, 28), np.uint8)
    images[0, 0, 3, 4] = 255  # even and odd units have weights +1 and -1
    np.testing.assert_array_equal(
        network.outputs(images), [[2 * (-1) ** unit + unit for unit in range(10)]]
    )


def refused(path, capsys, message):
    assert deployed.main([str(path), "images.npy"]) == 2
    assert capsys.readouterr().err == f"predict: {message}\n"


DAMAGED = "is damaged or no file of ./reproduce export; make it again from its run"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("image", [1, 28, 27]),
        ("preprocessing", "none"),
        ("layers", []),
        ("layers", {"kind": "dense"}),
        ("layers", [{"kind": "dense", "shape": [784, 10]}]),
        ("layers", None),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    path = written(tmp_path / "file.npz", {**manifest, key: value}, arrays)
    refused(path, capsys, f"{path} {DAMAGED}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [784, 11]),
        ("shape", [784, 10, 1]),
        ("shape", [784, -10]),
        ("shape", [784.0, 10]),
        ("shape", [784, 10**12]),
        ("kind", "convolution"),
        ("packed", False),
        ("packed", 1),
        ("pool", True),
    ],
)
def test_layers_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    manifest["layers"][0][key] = value
    path = written(tmp_path / "file.npz", manifest, arrays)
    refused(path, capsys, f"{path} {DAMAGED}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights0", np.zeros(979, np.uint8)),
        ("weights0", np.array([{}] * 980)),  # a pickle
        ("scale0", np.full(10, np.nan, np.float32)),
        ("shift0", np.zeros(10)),
        ("mean", np.zeros(784, np.float32)),
        ("more", np.zeros(1)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    path = written(tmp_path / "file.npz", manifest, {**arrays, key: value})
    refused(path, capsys, f"{path} {DAMAGED}")


def test_damaged_files(tmp_path, capsys, file):
    path = written(tmp_path / "file.npz", *file)
    content = path.read_bytes()
    for damage in (b"", b"text", content[:1000], content[:200] + b"\xff" * 80 + content[280:]):
        path.write_bytes(damage)
        refused(path, capsys, f"{path} {DAMAGED}")
    np.savez_compressed(path, manifest="{}", weights0=np.zeros(2**30 + 1, np.uint8))
    refused(path, capsys, f"{path} {DAMAGED}")
    path.unlink()
    refused(path, capsys, f"{path} does not exist; ./reproduce export RUN_DIR makes such files")


def test_other_version(tmp_path, capsys, file):
    manifest, arrays = file
    path = written(tmp_path / "file.npz", {**manifest, "version": 2}, arrays)
    message = f"{path} is of version 2, this program reads 1; export the run again"
    refused(path, capsys, message)


def test_image_files(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
    idx = struct.pack(">iiii", 2051, *images.shape) + images.tobytes()
    (tmp_path / "a").write_bytes(idx)
    (tmp_path / "b.gz").write_bytes(gzip.compress(idx))
    np.save(tmp_path / "c.npy", images.reshape(3, 784))
    np.savez(tmp_path / "d.npz", images)
    np.save(tmp_path / "e.npy", images[..., np.newaxis])
    for name in ("a", "b.gz", "c.npy", "d.npz", "e.npy"):
        found = deployed.read_images(tmp_path / name, [1, 28, 28])
        np.testing.assert_array_equal(found, images[:, np.newaxis])


@pytest.mark.parametrize("form", [(3, 32, 32, 3), (3, 3, 1024), (32, 32, 9), (3, 32, 96)])
def test_image_files_of_another_layout(tmp_path, form):
    images = np.zeros((3, 3, 32, 32), np.uint8)
    np.save(tmp_path / "images.npy", images)
    assert deployed.read_images(tmp_path / "images.npy", [3, 32, 32]).shape == images.shape
    np.save(tmp_path / "images.npy", images.reshape(form))
    with pytest.raises(deployed.UserError, match="holds no images of 3x32x32 pixels"):
        deployed.read_images(tmp_path / "images.npy", [3, 32, 32])


@pytest.mark.parametrize(
    "content", [b"", b"text", struct.pack(">iiii", 2051, 9, 28, 28), gzip.compress(b"x")[:9]]
)
def test_damaged_image_files(tmp_path, content):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(deployed.UserError) as caught:
        deployed.read_images(path, [1, 28, 28])
    assert str(caught.value) == (
        f"{path} holds no images of 1x28x28 pixels from 0 to 255; expected .npy, .npz or IDX"
    )
