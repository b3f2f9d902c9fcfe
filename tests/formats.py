"""Small files of the official formats and of ./reproduce export, and a server to download from."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import math
import pickle
import struct
import tarfile
import threading

import numpy as np
import scipy.io
from hypothesis import strategies as st


@st.composite
def damaged(draw, content):
    """Bytes with a few changes: some overwritten, inserted or deleted, the end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 4)))
        content[start:end] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def md5(content):
    return hashlib.md5(content).hexdigest()


def mnist(folder, train=60, test=20, pack=gzip.compress, seed=0):
    """Write the four files of MNIST, and return their images and labels."""
    rng = np.random.RandomState(seed)
    arrays = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in (("train", train), ("t10k", test)):
        images = rng.randint(0, 256, (number, 28, 28)).astype(np.uint8)
        labels = ((np.arange(number) + seed) % 10).astype(np.uint8)
        suffix = ".gz" if pack is gzip.compress else ""
        header = struct.pack(">iiii", 2051, number, 28, 28)
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(header + images.tobytes()))
        header = struct.pack(">ii", 2049, number)
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(header + labels.tobytes()))
        arrays += [images, labels]
    return arrays


@contextlib.contextmanager
def server(folder, cut=None):
    """Serve the files of a folder; gives the address, and a list that receives requested paths.

    `cut` breaks the connection after so many bytes of each file, though its whole length was
    announced.
    """
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/", asked
        finally:
            listening.shutdown()
            thread.join()


def cifar10_batches(number=20, seed=0):
    """{name: (images of shape (number, 3072), labels)} of the six batches."""
    rng = np.random.RandomState(seed)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (
            rng.randint(0, 256, (number, 3072)).astype(np.uint8),
            rng.randint(0, 10, number).tolist(),
        )
        for name in names
    }


def cifar10(folder, batches, **replaced):
    """Write the archive. Batches are `replaced` by other bytes, or left out if these are None."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, (images, labels) in batches.items():
            content = pickle.dumps({"data": images, "labels": labels}, protocol=2)
            content = replaced.get(name, content)
            if content is not None:
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def svhn(folder, train=4100, test=30, extra=2100, seed=0):
    """Write the three files of format 2, and return {set: (images, labels)}: channels come first,
    labels are 1 to 10."""
    rng = np.random.RandomState(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for name, number in (("train", train), ("test", test), ("extra", extra)):
        images = rng.randint(0, 256, (number, 3, 32, 32)).astype(np.uint8)
        labels = (rng.permutation(number) % 10 + 1).astype(np.uint8)
        sets[name] = images, labels
        matlab = {"X": np.asfortranarray(images.transpose(2, 3, 1, 0)), "y": labels[:, np.newaxis]}
        scipy.io.savemat(folder / f"{name}_32x32.mat", matlab, do_compression=name == "test")
    return sets


def exported(path, manifest, arrays):
    """Write a file as ./reproduce export does."""
    np.savez(path, manifest=json.dumps(manifest), **arrays)
    return path


def exported_floats():
    """(manifest, arrays) of a small file: 784 inputs, 10 units, weights +1, -1, +1, ..."""
    weights = np.packbits(np.arange(7840) % 2 == 0)
    layer = {"kind": "dense", "shape": [784, 10], "packed": True, "pool": False, "rectify": False}
    manifest = {"format": "binaryconnect", "version": 1, "preprocessing": "centred"}
    manifest.update(image=[1, 28, 28], layers=[layer])
    arrays = {"weights0": weights, "mean": np.zeros((1, 28, 28), np.float32)}
    arrays.update(scale0=np.full(10, 2, np.float32), shift0=np.arange(10, dtype=np.float32))
    return manifest, arrays


def exported_bnn():
    """(manifest, arrays) of a small file: 784 inputs, 65 units, 10 units; all weights are +1."""
    layers = [
        {"kind": "dense", "shape": [784, 65], "pool": False},
        {"kind": "dense", "shape": [65, 10], "pool": False},
    ]
    manifest = {"format": "bnn", "version": 1, "image": [1, 28, 28], "layers": layers}

    def words(bits):  # bit i of word i // 64
        bits = np.concatenate([bits, np.zeros(-len(bits) % 64, bool)])
        return np.packbits(bits, bitorder="little").view(np.uint64)

    arrays = {f"weights{i}": words(np.ones(n, bool)) for i, n in enumerate((784 * 65, 650))}
    arrays["threshold0"] = np.full(65, -784 * 255 + 2, np.int32)  # one pixel of 1 suffices ...
    arrays["negative0"] = words(np.arange(65) < 5)  # ... for -1 of the first 5 units
    arrays.update(dict.fromkeys(("mean", "gamma", "inv_std", "beta"), np.ones(10, np.float32)))
    arrays["bias"] = np.arange(10, dtype=np.float32)
    return manifest, arrays


NAME = {"dataset": "mnist", "protocol": "p-1", "method": "m", "seed": 1, "test_error": 1.234}


def _layers(shapes, pools):
    return [
        {"kind": {2: "dense", 4: "convolution"}[len(shape)], "shape": shape, "pool": bool(pool)}
        for shape, pool in zip(shapes, pools, strict=True)
    ]


def random_bnn(image, shapes, pools):
    """(manifest, arrays) of a network of random bits, whose units are +1 about as often as -1."""
    from reproduction.deploy import bnn_network

    random = np.random.RandomState(1)
    arrays = {name: np.float32(random.randn(shapes[-1][1])) for name in bnn_network.LAST}
    for i, shape in enumerate(shapes):
        units = shape[1] if len(shape) == 2 else shape[0]
        inputs = math.prod(shape) // units * (1 if i else 255**2 / 3)
        arrays[f"weights{i}"] = bnn_network.pack(random.randn(*shape))
        if i < len(shapes) - 1:
            arrays[f"threshold{i}"] = np.int32(random.randn(units) * np.sqrt(inputs))
            arrays[f"negative{i}"] = bnn_network.pack(random.randn(units))
    manifest = {**NAME, "format": "bnn", "version": 1, "image": image}
    return {**manifest, "layers": _layers(shapes, pools)}, arrays


def random_floats(image, shapes, pools, preprocessing="centred", packed=True):
    """(manifest, arrays) of a network of random weights, binary (`packed`) or real."""
    random = np.random.RandomState(1)
    layers = _layers(shapes, pools)
    pixels = math.prod(image)
    arrays = {}
    if preprocessing == "centred":
        arrays["mean"] = np.float32(random.rand(*image))
    elif preprocessing == "whitened":
        arrays["mean"] = np.float32(random.rand(pixels))
        arrays["matrix"] = np.float32(random.randn(pixels, pixels) / math.sqrt(pixels))
    for i, layer in enumerate(layers):
        shape = layer["shape"]
        layer.update(packed=packed, rectify=i < len(layers) - 1)
        units = shape[1] if len(shape) == 2 else shape[0]
        W = random.randn(*shape)
        arrays[f"weights{i}"] = np.packbits(W > 0) if packed else np.float32(W)
        arrays[f"scale{i}"] = np.float32(random.randn(units))
        arrays[f"shift{i}"] = np.float32(random.randn(units))
    manifest = {**NAME, "format": "binaryconnect", "version": 1, "preprocessing": preprocessing}
    return {**manifest, "image": image, "layers": layers}, arrays
