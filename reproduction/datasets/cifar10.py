"""CIFAR-10, as whitened images or as signed pixels."""

import io
import pickle
import sys
import tarfile
from itertools import islice
from pathlib import Path

from original_stack.errors import UserError, reading

import h5py
import numpy as np
from fuel.converters.cifar10 import convert_cifar10

from reproduction.datasets import cifar10_batch, preprocessing
from reproduction.datasets import files as data_files
from reproduction.datasets.dataset import Split, split
from reproduction.datasets.prepared import folder_beside, prepare, quiet

BATCHES = [name for name in data_files.CHECKSUMS if "batch" in name]
LARGEST = 2**29  # bytes of an unzipped archive or of a batch; the official archive has 178 MiB


def load(directories, allow_unofficial, inputs):
    """See `datasets.load`."""
    folder = _extracted(directories)
    if folder and not data_files.find("cifar10", data_files.WANTED["cifar10"][0], directories):
        missing = [batch for batch in BATCHES if not data_files.exists(folder / batch)]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; extract the whole archive there")
        paths = {batch: folder / batch for batch in BATCHES}
        files = tuple(data_files.checked(path, allow_unofficial) for path in paths.values())
    else:
        paths, files = data_files.official_files("cifar10", directories, allow_unofficial)
    with prepare(
        "cifar10.hdf5", files, directories, lambda path: _convert(paths, path)
    ) as prepared:
        images, labels = prepared.images("train"), prepared.labels("train")
        test_images, test_labels = prepared.images("test"), prepared.labels("test")
    images, test_images, description = preprocess(
        images, test_images, inputs, "cifar10_whitened.hdf5", files, directories
    )
    return split(
        "cifar10",
        Split(images, labels),
        len(labels) // 10,  # 5,000
        Split(test_images, test_labels),
        files,
        description,
    )


def preprocess(images, test_images, inputs, name, files, directories):
    """Both sets of images, preprocessed, and a description. Whitened images are kept in `name`."""
    if inputs == "signed":
        transform, description = preprocessing.PIXELS[inputs]
        return transform(images), transform(test_images), description
    with prepare(
        name, files, directories, lambda path: _whiten(images, test_images, path)
    ) as prepared:
        whitened = prepared.memory_map("features", np.float32)
    description = "GCN (scale 55), ZCA (filter bias 0.1) fitted on training and validation images"
    return whitened[: len(images)], whitened[len(images) :], description


def _extracted(directories):
    """The folder that has the extracted batches, or None."""
    for directory in directories:
        for below in ("", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"):
            if data_files.exists(directory / below / BATCHES[0]):
                return directory / below
    return None


def _convert(paths, output):
    with folder_beside(output) as folder:
        _repack(paths, folder)
        with quiet():
            convert_cifar10(folder, str(output.parent), output.name)


def _repack(paths, folder):
    """Write the archive that Fuel expects, but with plain arrays and lists only: Fuel unpickles
    what it is given, which could execute anything."""
    archive = Path(folder, data_files.WANTED["cifar10"][0])
    with tarfile.open(archive, "w:gz", compresslevel=0) as target:
        for place, batch, content in _batches(paths, Path(folder, "plain")):
            with reading(place, data_files.REMEDY):
                content = pickle.dumps(cifar10_batch.read(content), protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{batch}")
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))


def _batches(paths, plain):
    """Yield the location, name and content of each batch. `plain` is a temporary file."""
    first = next(iter(paths.values()))
    if first.name in BATCHES:
        for batch, path in paths.items():
            data_files.unpack(path, plain, LARGEST)
            yield path, batch, plain.read_bytes()
        return
    data_files.unpack(first, plain, LARGEST)
    with reading(first, data_files.REMEDY), tarfile.open(plain, "r:") as archive:
        # A negative size would make the list of members endless.
        members = {member.name: member for member in islice(archive, 1000)}
        for batch in BATCHES:
            member = members[f"cifar-10-batches-py/{batch}"]
            if not member.isreg() or member.issparse():
                raise ValueError(f"{member.name} is not a regular file")
            yield f"{first} ({batch})", batch, archive.extractfile(member).read()


def _whiten(images, test_images, output):
    print("whitening the images, once; this takes about half a minute", file=sys.stderr)
    mean, matrix = preprocessing.fit_zca(preprocessing.global_contrast_normalize(images, 55.0))
    images = np.concatenate([images, test_images])
    with h5py.File(output, "w") as file:
        features = file.create_dataset("features", images.shape, np.float32)
        for start in range(0, len(images), 5000):
            block = preprocessing.global_contrast_normalize(images[start : start + 5000], 55.0)
            features[start : start + 5000] = preprocessing.whiten(block, mean, matrix)
