"""Networks on a device of OpenCL against the same networks on this processor, bit for bit."""

import original_stack

import formats
import numpy as np
import pytest
from checks import opencl_error, refusal

from reproduction.deploy import bnn_network, predict
from reproduction.deploy.opencl.network import Network

NETWORKS = {
    "dense": ([1, 28, 28], [[784, 37], [37, 64], [64, 10]], []),
    "one layer": ([1, 5, 5], [[25, 10]], []),
    "wide": ([1, 3, 3], [[9, 129], [129, 200], [200, 10]], []),
    # 11 x 9, then 5 x 4, then 2 x 2: odd borders are ignored
    "convolutions": (
        [3, 11, 9],
        [[5, 3, 3, 3], [70, 5, 3, 3], [19, 70, 3, 3], [76, 67], [67, 10]],
        [1, 2],
    ),
    # A dense layer of 3 x 3 places is not a convolution.
    "nine places": ([3, 6, 6], [[33, 3, 3, 3], [297, 10]], [0]),
    "one row": ([2, 1, 5], [[4, 2, 3, 3], [6, 4, 3, 3], [30, 10]], []),
    "one pixel": ([65, 1, 1], [[4, 65, 3, 3], [70, 4, 3, 3], [70, 10]], []),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """(manifest, arrays, pixels, expected outputs)"""
    image, shapes, pooled = NETWORKS[request.param]
    manifest, arrays = formats.random_bnn(image, shapes, [i in pooled for i in range(len(shapes))])
    pixels = np.random.RandomState(2).randint(0, 256, (70, *image)).astype(np.uint8)
    expected = bnn_network.Network(manifest, arrays).outputs(pixels)
    assert len(np.unique(expected, axis=0)) > 3
    return manifest, arrays, pixels, expected


def test_outputs(opencl_device, case):
    manifest, arrays, pixels, expected = case
    network = Network(manifest, arrays, opencl_device)
    outputs = network.outputs(pixels)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(network.outputs(pixels[:1]), expected[:1])
    np.testing.assert_array_equal(network.outputs(pixels[:3] - 0.4), expected[:3])


@pytest.fixture
def small():
    manifest, arrays = formats.random_bnn(*NETWORKS["convolutions"][:2], [False, True, True, 0, 0])
    pixels = np.random.RandomState(3).randint(0, 256, (23, 3, 11, 9)).astype(np.uint8)
    return manifest, arrays, pixels, bnn_network.Network(manifest, arrays).outputs(pixels)


def parts(network, monkeypatch):
    """A list that from now on receives the number of images that are processed at once."""
    numbers, sums = [], network._sums

    def counting(pixels):
        numbers.append(len(pixels))
        return sums(pixels)

    monkeypatch.setattr(network, "_sums", counting)
    return numbers


def test_more_images_than_memory_holds(opencl_device, small, monkeypatch):
    manifest, arrays, pixels, expected = small
    network = Network(manifest, arrays, opencl_device)
    monkeypatch.setattr(opencl_device, "memory", 5 * network._bytes + 1)
    numbers = parts(network, monkeypatch)
    np.testing.assert_array_equal(network.outputs(pixels), expected)
    assert numbers == [5, 5, 5, 5, 3]
    numbers.clear()
    monkeypatch.setattr(opencl_device, "memory", 1)
    np.testing.assert_array_equal(network.outputs(pixels), expected)
    assert numbers == [1] * 23


def limited(device, monkeypatch, most):
    """Let the device refuse arrays of more than `most` bytes."""
    empty = device.empty

    def refusing(shape, dtype):
        if np.prod(shape) * np.dtype(dtype).itemsize > most:
            raise opencl_error("MEM_OBJECT_ALLOCATION_FAILURE", "clCreateBuffer")
        return empty(shape, dtype)

    monkeypatch.setattr(device, "empty", refusing)


def test_memory_that_others_use(opencl_device, small, monkeypatch):
    """Parts are halved until they fit."""
    manifest, arrays, pixels, expected = small
    network = Network(manifest, arrays, opencl_device)
    largest = 4 * 11 * 9 * 18  # the patches of the second layer, 9 x 2 words for each place
    limited(opencl_device, monkeypatch, 6 * largest)
    numbers = parts(network, monkeypatch)
    np.testing.assert_array_equal(network.outputs(pixels), expected)
    assert numbers == [23, 12, 6, 6, 6, 5]


def test_no_memory_for_one_image(opencl_device, small, monkeypatch):
    manifest, arrays, pixels, _ = small
    network = Network(manifest, arrays, opencl_device)
    limited(opencl_device, monkeypatch, 1000)
    assert refusal(network.outputs, pixels) == (
        f"{opencl_device.name} has too little memory (clCreateBuffer failed: "
        "MEM_OBJECT_ALLOCATION_FAILURE); close other programs that use it, or choose another "
        "device: ./reproduce devices lists the devices"
    )


def test_predict(opencl_device, tmp_path, capsys):
    path = formats.exported(tmp_path / "file.npz", *formats.exported_bnn())
    images = np.zeros((3, 784))
    images[1, 5] = 1
    np.save(tmp_path / "images.npy", images)
    arguments = [str(path), str(tmp_path / "images.npy"), "--scale", "1", "--scores"]
    assert predict.main(arguments) == 0
    expected = capsys.readouterr()
    for device in ("opencl", "opencl:0"):
        assert predict.main([*arguments, "--device", device]) == 0
        assert capsys.readouterr() == expected


def test_predict_by_a_network_of_float_activations(tmp_path, capsys):
    path = formats.exported(tmp_path / "file.npz", *formats.exported_floats())
    assert predict.main([str(path), "images.npy", "--device", "opencl"]) == 2
    assert capsys.readouterr().err == (
        f"predict: {path} is a network of float activations; --device is for networks of method "
        "bnn, omit it\n"
    )


@pytest.mark.parametrize("device", ["cuda", "opencl:", "opencl:-1", "opencl:x"])
def test_other_devices(capsys, device):
    with pytest.raises(SystemExit) as raised:
        predict.main(["file.npz", "images.npy", "--device", device])
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        f"predict: argument --device: {device!r} is neither opencl nor opencl:NUMBER; --help lists "
        "the options\n"
    )
