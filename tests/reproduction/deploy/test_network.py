"""Networks of float additions: outputs computed by hand, and checks of their files."""

import subprocess
import sys

import formats
import numpy as np
import pytest
from checks import assert_network_refused

from reproduction.deploy import predict


@pytest.fixture
def file():
    return formats.exported_floats()


def test_outputs_by_hand(tmp_path, file):
    network = predict.load(formats.exported(tmp_path / "file.npz", *file))
    images = np.zeros((1, 1, 28, 28), np.uint8)
    images[0, 0, 3, 4] = 255  # even and odd units have weights +1 and -1
    np.testing.assert_array_equal(
        network.outputs(images), [[2 * (-1) ** unit + unit for unit in range(10)]]
    )


def test_pooling_ignores_the_border_of_odd_images(tmp_path):
    """There are 28 rows, then 14, then 7, then 3."""
    layers, arrays = [], {"mean": np.zeros((1, 28, 28), np.float32)}
    common = {"packed": False, "rectify": False}
    middle = np.zeros((1, 1, 3, 3), np.float32)
    middle[0, 0, 1, 1] = 1
    for i in range(3):
        layers.append({"kind": "convolution", "shape": [1, 1, 3, 3], "pool": True, **common})
        arrays[f"weights{i}"] = middle
    layers.append({"kind": "dense", "shape": [9, 1], "pool": False, **common})
    arrays["weights3"] = np.ones((9, 1), np.float32)
    for i in range(4):
        arrays.update({f"scale{i}": np.ones(1, np.float32), f"shift{i}": np.zeros(1, np.float32)})
    manifest = {"format": "binaryconnect", "version": 1, "preprocessing": "centred"}
    manifest.update(image=[1, 28, 28], layers=layers)
    network = predict.load(formats.exported(tmp_path / "file.npz", manifest, arrays))
    images = np.zeros((1, 1, 28, 28), np.uint8)
    images[0, 0, :24, :24] = 255
    images[0, 0, 24:, 24:] = 255
    np.testing.assert_array_equal(network.outputs(images), [[9]])
    images[0, 0, :8, :8] = 0
    np.testing.assert_array_equal(network.outputs(images), [[8]])


def test_prediction_does_not_load_theano(tmp_path, file):
    path = formats.exported(tmp_path / "file.npz", *file)
    np.save(tmp_path / "images.npy", np.zeros((1, 784)))
    program = (
        "import sys; from reproduction.deploy import predict; predict.main(sys.argv[1:]); "
        "sys.exit('theano' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "images.npy")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("9\n", 0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", "other", "format"),
        ("version", "1", "version"),
        ("image", [1, 28, 27], "image"),
        ("image", [1, 28.0, 28], "image"),
        ("image", None, "image"),
        ("preprocessing", "none", "preprocessing"),
        ("preprocessing", "whitened", "mean"),
        ("layers", [], "layers"),
        ("layers", {"kind": "dense"}, "layers"),
        ("layers", [{"kind": "dense", "shape": [784, 10]}], "'pool'"),
        ("layers", None, "layers"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, file, key, value, reason):
    manifest, arrays = file
    assert_network_refused(tmp_path / "file.npz", {**manifest, key: value}, arrays, reason)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("shape", [784, 11], "weights0"),
        ("shape", [784, 10, 1], "layer 0"),
        ("shape", [784, -10], "layer 0"),
        ("shape", [784.0, 10], "layer 0"),
        ("shape", [784, 10**12], "layer 0"),
        ("kind", "convolution", "layer 0"),
        ("packed", False, "weights0"),
        ("packed", 1, "layer 0"),
        ("pool", True, "layer 0"),
    ],
)
def test_layers_that_do_not_fit(tmp_path, file, key, value, reason):
    manifest, arrays = file
    manifest["layers"][0][key] = value
    assert_network_refused(tmp_path / "file.npz", manifest, arrays, reason)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights0", np.zeros(979, np.uint8)),
        ("scale0", np.full(10, np.nan, np.float32)),
        ("shift0", np.zeros(10)),
        ("mean", np.zeros(784, np.float32)),
        ("more", np.zeros(1)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, file, key, value):
    manifest, arrays = file
    assert_network_refused(tmp_path / "file.npz", manifest, {**arrays, key: value}, key)


def test_layers_that_are_too_large_together(tmp_path, file):
    """Their bits need less than 40 MiB, their weights as float32 more than 1 GiB."""
    manifest, arrays = file
    common = {"kind": "dense", "packed": True, "pool": False, "rectify": False}
    shapes = [[784, 2**14], [2**14, 2**14], [2**14, 10]]
    manifest["layers"] = [{"shape": shape, **common} for shape in shapes]
    assert_network_refused(tmp_path / "file.npz", manifest, arrays, "layer 1")
