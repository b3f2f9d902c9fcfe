"""Small files of the official formats, and a server to download them from."""

import contextlib
import gzip
import hashlib
import http.server
import io
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
    """Writes the four files of MNIST; their images and labels as arrays."""
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
    """Serves the files of a folder; the address, and a list that gets the paths asked for.

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
    """Writes the archive, some batches `replaced` by other bytes or, with None, left out."""
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
    """Writes the three files of format 2; {set: (images channels first, labels 1 to 10)}."""
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
