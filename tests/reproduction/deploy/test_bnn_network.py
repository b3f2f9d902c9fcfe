"""Packed networks against the Theano networks that they come from, bit for bit, and damaged
files."""

import dataclasses
import json
import types

import original_stack

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from lasagne.layers import InputLayer, MaxPool2DLayer

import binary_connect
import binary_net
import mnist
from fused import xnor
from reproduction.datasets.dataset import Dataset, Split
from reproduction.deploy import bnn_network as packed
from reproduction.deploy import export
from reproduction.deploy import network as deployed

KERNELS = ("", "avx512", "avx2", "plain")


def convolutional(h):
    """Odd numbers of filters and units; sums pooled where rows are odd; one layer of more than a
    word."""
    scale = binary_net.scale_pixels
    net = InputLayer((None, 3, 11, 9))
    for filters, pool in ((5, False), (70, True), (19, True)):
        net = binary_connect.Conv2DLayer(
            net, filters, (3, 3), pad=1, nonlinearity=scale, **h.weights
        )
        scale = lasagne.nonlinearities.identity
        if pool:
            net = MaxPool2DLayer(net, (2, 2))
        net = binary_net.normalize_and_binarize(net, True, h.shift_based)
    for units in (67, 10):
        net = binary_connect.DenseLayer(net, units, nonlinearity=scale, **h.weights)
        net = binary_net.normalize_and_binarize(net, units != 10, h.shift_based)
    return net


def randomized(network):
    """`network` with batch normalization by about what it would find, scales of either sign."""
    random = np.random.RandomState(2)
    for layer in lasagne.layers.get_all_layers(network):
        if hasattr(layer, "W"):
            W = layer.W.get_value()
            spread = np.sqrt(W[:, 0].size if W.ndim == 2 else W[0].size)
            layer.b.set_value(np.float32(random.normal(0, 0.1, layer.b.get_value().shape)))
        elif hasattr(layer, "gamma"):
            units = layer.gamma.get_value().shape
            layer.mean.set_value(np.float32(random.normal(0, spread / 2, units)))
            layer.inv_std.set_value(np.float32(random.uniform(0.5, 2, units) / spread))
            layer.gamma.set_value(np.float32(random.normal(0, 1, units)))
            layer.beta.set_value(np.float32(random.normal(0, 0.5, units)))
    return network


def run_of(build_network, h):
    """What export needs of a run."""
    lasagne.random.set_rng(np.random.RandomState(1))
    network = randomized(build_network(h))
    run = {"dataset": "mnist", "protocol": h.protocol, "method": h.method, "seed": 1}
    return types.SimpleNamespace(h=h, run=run, network=lambda: network)


def images_of(shape, n=230):
    """(data set of random pixels as a network takes them, the pixels)"""
    pixels = np.random.RandomState(3).randint(0, 256, (n, *shape)).astype(np.uint8)
    part = Split(np.float32(pixels) * 2 - 255, np.arange(n) % 10)
    return Dataset("mnist", part, part, part, files=(), preprocessing=""), pixels


@pytest.mark.parametrize("protocol", [mnist.BNN_THEANO, mnist.BNN_TORCH7], ids=["theano", "torch7"])
@pytest.mark.parametrize(
    ("build_network", "shape"),
    [(mnist.build_network, (1, 28, 28)), (convolutional, (3, 11, 9))],
    ids=["dense", "convolutional"],
)
def test_outputs_equal_those_of_theano(monkeypatch, tmp_path, protocol, build_network, shape):
    run = run_of(build_network, dataclasses.replace(protocol, num_units=37))
    dataset, pixels = images_of(shape)
    X = T.tensor4()
    output = lasagne.layers.get_output(run.network(), X, deterministic=True)
    expected = theano.function([X], output)(dataset.test.X)
    assert len(set(expected.argmax(axis=1))) >= 3
    assert len(np.unique(expected, axis=0)) > 100

    made, unequal = export.export_bnn(run, dataset)
    assert unequal == 0
    assert made.manifest["test_error"] == 100 * np.mean(expected.argmax(axis=1) != dataset.test.y)
    kernels = 0
    for kernel in KERNELS:
        monkeypatch.setenv("BINARYCONNECT_XNOR", kernel)
        try:
            outputs = made.outputs(pixels)
        except packed.UserError:  # not on this processor
            continue
        assert outputs.dtype == np.float32
        np.testing.assert_array_equal(outputs, expected)
        kernels += 1
    assert kernels >= 2
    monkeypatch.delenv("BINARYCONNECT_XNOR")
    np.testing.assert_array_equal(made.outputs(pixels[:3], batch=1), expected[:3])
    whole, stored = made.sizes()
    assert stored == sum(
        8 * -(-int(np.prod(one["shape"])) // 64) for one in made.manifest["layers"]
    )
    if shape == (1, 28, 28):
        (tmp_path / "file.npz").write_bytes(made.content())
        loaded = deployed.load(tmp_path / "file.npz")
        np.testing.assert_array_equal(loaded.outputs(pixels), expected)


@pytest.mark.parametrize("least", [-9, -8, -3, 0, 5, 9, 10])
@pytest.mark.parametrize("sign", [1, -1])
def test_thresholds(least, sign):
    """Of units that are +1 from `least` on, or below; the first and last are never or always so."""

    def ask(sums):
        return np.where(sums >= least, sign, -sign)

    found, negative = export.thresholds(ask, 9, 2)
    sums = np.arange(-9, 10)[:, np.newaxis]
    np.testing.assert_array_equal((sums >= found) ^ negative, ask(sums) * np.ones(2) > 0)
    assert found.dtype == np.int32


@pytest.fixture
def file():
    """(manifest, arrays) of a small file: 784 inputs, 65 units, 10 units; all weights are +1."""
    layers = [
        {"kind": "dense", "shape": [784, 65], "pool": False},
        {"kind": "dense", "shape": [65, 10], "pool": False},
    ]
    manifest = {"format": "bnn", "version": 1, "image": [1, 28, 28], "layers": layers}
    arrays = {f"weights{i}": packed.pack(np.ones(layers[i]["shape"])) for i in range(2)}
    arrays["threshold0"] = np.full(65, -784 * 255 + 2, np.int32)  # one pixel of 1 suffices ...
    arrays["negative0"] = xnor.pack_bits(np.arange(65) < 5)  # ... for -1 of the first 5 units
    arrays.update({name: np.ones(10, np.float32) for name in packed.LAST})
    arrays["bias"] = np.arange(10, dtype=np.float32)
    return manifest, arrays


def written(path, manifest, arrays):
    np.savez(path, manifest=json.dumps(manifest), **arrays)
    return path


def test_outputs_by_hand(tmp_path, file):
    network = deployed.load(written(tmp_path / "file.npz", *file))
    images = np.zeros((2, 1, 28, 28), np.uint8)
    images[1, 0, 3, 4] = 1
    expected = np.array([[5 - 60], [60 - 5]]) + np.arange(10)
    np.testing.assert_array_equal(network.outputs(images), expected)


def test_predict(tmp_path, capsys, file):
    path = written(tmp_path / "file.npz", *file)
    np.save(tmp_path / "images.npy", np.zeros((3, 784)))
    assert deployed.main([str(path), str(tmp_path / "images.npy")]) == 0
    printed = capsys.readouterr()
    assert printed.out == "9\n9\n9\n"
    assert printed.err == "weights: 206,440 bytes as float32, 6,464 here, 31.9 times less\n"


def test_predict_with_another_kernel(tmp_path, capsys, monkeypatch, file):
    path = written(tmp_path / "file.npz", *file)
    np.save(tmp_path / "images.npy", np.zeros((3, 784)))
    monkeypatch.setenv("BINARYCONNECT_XNOR", "neon")
    assert deployed.main([str(path), str(tmp_path / "images.npy")]) == 2
    assert capsys.readouterr().err == (
        "predict: BINARYCONNECT_XNOR is 'neon', expected avx512, avx2 or plain, of which this "
        "processor has the instructions\n"
    )


def refused(path, capsys, manifest, arrays):
    assert deployed.main([str(written(path, manifest, arrays)), "images.npy"]) == 2
    assert capsys.readouterr().err == (
        f"predict: {path} is damaged or no file of ./reproduce export; make it again from its run\n"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", [1, 28, 27]),
        ("layers", []),
        ("layers", None),
        ("layers", [{"kind": "dense", "shape": [784, 65]}]),
        ("layers", [{"kind": "convolution", "shape": [10, 1, 3, 3], "pool": False}]),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    refused(tmp_path / "file.npz", capsys, {**manifest, key: value}, arrays)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [784, 66]),
        ("shape", [784, 65, 1]),
        ("shape", [784, -65]),
        ("shape", [784, 65.0]),
        ("shape", [784, 10**12]),
        ("kind", "convolution"),
        ("kind", "other"),
        ("pool", True),
        ("pool", 0),
    ],
)
def test_layers_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    manifest["layers"][0][key] = value
    refused(tmp_path / "file.npz", capsys, manifest, arrays)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights0", np.zeros(795, np.uint64)),
        ("weights0", np.zeros(796 * 64, np.uint8)),
        ("weights0", np.array([{}] * 797)),  # a pickle
        ("weights1", np.full(11, 2**64 - 1, np.uint64)),  # beyond the last weight
        ("threshold0", np.zeros(65)),
        ("threshold0", np.zeros(64, np.int32)),
        ("negative0", np.array([0, 2], np.uint64)),  # beyond the last unit
        ("gamma", np.full(10, np.nan, np.float32)),
        ("bias", np.zeros((10, 1), np.float32)),
        ("threshold1", np.zeros(10, np.int32)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, capsys, file, key, value):
    manifest, arrays = file
    refused(tmp_path / "file.npz", capsys, manifest, {**arrays, key: value})


def test_lacking_arrays(tmp_path, capsys, file):
    manifest, arrays = file
    for key in arrays:
        lacking = {name: array for name, array in arrays.items() if name != key}
        refused(tmp_path / "file.npz", capsys, manifest, lacking)


def test_other_version(tmp_path, capsys, file):
    manifest, arrays = file
    path = written(tmp_path / "file.npz", {**manifest, "version": 2}, arrays)
    assert deployed.main([str(path), "images.npy"]) == 2
    assert capsys.readouterr().err == (
        f"predict: {path} is of version 2, this program reads 1; export the run again\n"
    )
