"""Packed networks against the Theano networks that they come from, bit for bit, and damaged
files."""

import dataclasses
import types

import original_stack
from original_stack.errors import UserError

import formats
import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from checks import assert_network_refused
from lasagne.layers import InputLayer, MaxPool2DLayer

import binary_connect
import binary_net
import mnist
from fused import xnor
from reproduction.datasets.dataset import Dataset, Split
from reproduction.deploy import export, predict

KERNELS = ("", "avx512", "avx512bw", "avx2", "plain")


def convolutional(hp):
    """Odd numbers of filters and units; sums pooled where rows are odd; one layer of more than a
    word."""
    scale = binary_net.scale_pixels
    net = InputLayer((None, 3, 11, 9))
    for filters, pool in ((5, False), (70, True), (19, True)):
        net = binary_connect.Conv2DLayer(
            net, filters, (3, 3), pad=1, nonlinearity=scale, **hp.weights
        )
        scale = lasagne.nonlinearities.identity
        if pool:
            net = MaxPool2DLayer(net, (2, 2))
        net = binary_net.normalize_and_binarize(net, True, hp.shift_based)
    for units in (67, 10):
        net = binary_connect.DenseLayer(net, units, nonlinearity=scale, **hp.weights)
        net = binary_net.normalize_and_binarize(net, units != 10, hp.shift_based)
    return net


def randomized(network):
    """`network` with plausible batch-norm statistics and scales of either sign."""
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


def run_of(build_network, hp):
    """The part of a run that export needs."""
    lasagne.random.set_rng(np.random.RandomState(1))
    network = randomized(build_network(hp))
    record = {"dataset": "mnist", "protocol": hp.protocol, "method": hp.method, "seed": 1}
    return types.SimpleNamespace(hp=hp, record=record, network=lambda: network)


def images_of(shape, n=230):
    """A data set of random pixels, preprocessed for a network, and the pixels."""
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
        except UserError:  # not on this processor
            continue
        assert outputs.dtype == np.float32
        np.testing.assert_array_equal(outputs, expected)
        kernels += 1
    assert kernels >= 2
    monkeypatch.delenv("BINARYCONNECT_XNOR")
    np.testing.assert_array_equal(made.outputs(pixels[:3], batch=1), expected[:3])
    whole, stored = made.sizes()
    assert stored == sum(
        8 * -(-int(np.prod(layer["shape"])) // 64) for layer in made.manifest["layers"]
    )
    if shape == (1, 28, 28):
        (tmp_path / "file.npz").write_bytes(made.content())
        loaded = predict.load(tmp_path / "file.npz")
        np.testing.assert_array_equal(loaded.outputs(pixels), expected)


@pytest.mark.parametrize("least", [-9, -8, -3, 0, 5, 9, 10])
@pytest.mark.parametrize("sign", [1, -1])
def test_thresholds(least, sign):
    """Units are +1 from `least` on, or below it; the first and the last unit never or always."""

    def activations(sums):
        return np.where(sums >= least, sign, -sign)

    computed, negative = export.thresholds(activations, 9, 2)
    sums = np.arange(-9, 10)[:, np.newaxis]
    np.testing.assert_array_equal((sums >= computed) ^ negative, activations(sums) * np.ones(2) > 0)
    assert computed.dtype == np.int32


@pytest.fixture
def file():
    return formats.exported_bnn()


def test_outputs_by_hand(tmp_path, file):
    network = predict.load(formats.exported(tmp_path / "file.npz", *file))
    images = np.zeros((2, 1, 28, 28), np.uint8)
    images[1, 0, 3, 4] = 1
    expected = np.array([[5 - 60], [60 - 5]]) + np.arange(10)
    np.testing.assert_array_equal(network.outputs(images), expected)


def test_predict_with_another_kernel(tmp_path, capsys, monkeypatch, file):
    path = formats.exported(tmp_path / "file.npz", *file)
    np.save(tmp_path / "images.npy", np.zeros((3, 784)))
    monkeypatch.setenv("BINARYCONNECT_XNOR", "neon")
    assert predict.main([str(path), str(tmp_path / "images.npy")]) == 2
    assert capsys.readouterr().err == (
        "predict: BINARYCONNECT_XNOR is 'neon', expected avx512, avx512bw, avx2 or plain, of "
        "which this processor has the instructions\n"
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("image", [1, 28, 27], "image"),
        ("layers", [], "layers"),
        ("layers", None, "layers"),
        ("layers", [{"kind": "dense", "shape": [784, 65]}], "'pool'"),
        (
            "layers",
            [{"kind": "convolution", "shape": [10, 1, 3, 3], "pool": False}],
            "the last layer",
        ),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, file, key, value, reason):
    manifest, arrays = file
    assert_network_refused(tmp_path / "file.npz", {**manifest, key: value}, arrays, reason)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("shape", [784, 66], "layer 1"),
        ("shape", [784, 65, 1], "layer 0"),
        ("shape", [784, -65], "layer 0"),
        ("shape", [784, 65.0], "layer 0"),
        ("shape", [784, 10**12], "layer 0"),
        ("kind", "convolution", "layer 0"),
        ("kind", "other", "layer 0"),
        ("pool", True, "layer 0"),
        ("pool", 0, "layer 0"),
    ],
)
def test_layers_that_do_not_fit(tmp_path, file, key, value, reason):
    manifest, arrays = file
    manifest["layers"][0][key] = value
    assert_network_refused(tmp_path / "file.npz", manifest, arrays, reason)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights0", np.zeros(795, np.uint64)),
        ("weights0", np.zeros(796 * 64, np.uint8)),
        ("weights1", np.full(11, 2**64 - 1, np.uint64)),  # beyond the last weight
        ("threshold0", np.zeros(65)),
        ("threshold0", np.zeros(64, np.int32)),
        ("negative0", np.array([0, 2], np.uint64)),  # beyond the last unit
        ("gamma", np.full(10, np.nan, np.float32)),
        ("bias", np.zeros((10, 1), np.float32)),
        ("threshold1", np.zeros(10, np.int32)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, file, key, value):
    manifest, arrays = file
    assert_network_refused(tmp_path / "file.npz", manifest, {**arrays, key: value}, key)


def test_lacking_arrays(tmp_path, file):
    manifest, arrays = file
    for key in arrays:
        lacking = {name: array for name, array in arrays.items() if name != key}
        assert_network_refused(tmp_path / "file.npz", manifest, lacking, key)
