"""CIFAR-10, whitened or as signed pixels."""

import contextlib
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

from original_stack.errors import UserError

import h5py
import numpy as np
from fuel.converters.cifar10 import convert_cifar10

from reproduction.datasets import files as data_files
from reproduction.datasets import prepared, preprocessing
from reproduction.datasets.dataset import Split, split

BATCHES = [name for name in data_files.CHECKSUMS if "batch" in name]


def load(directories, allow_unofficial, inputs):
    """See `datasets.load`."""
    if "PYLEARN2_DATA_PATH" in os.environ:
        directories = [*directories, Path(os.environ["PYLEARN2_DATA_PATH"])]
    folder = _extracted(directories)
    if folder and not data_files.find("cifar10", data_files.WANTED["cifar10"][0], directories):
        missing = [batch for batch in BATCHES if not (folder / batch).is_file()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; extract the whole archive there")
        paths = {batch: folder / batch for batch in BATCHES}
        files = tuple(data_files.checked(path, allow_unofficial) for path in paths.values())
    else:
        paths, files = data_files.official_files("cifar10", directories, allow_unofficial)
    official = all(file.official for file in files)
    path = prepared.prepare(
        "cifar10.hdf5", files, directories, lambda path: _convert(paths, official, path)
    )
    images, labels = prepared.read(path, "train")
    test_images, test_labels = prepared.read(path, "test")
    number = len(labels)
    if inputs == "signed":
        transform, description = preprocessing.PIXELS[inputs]
        images, test_images = transform(images), transform(test_images)
    else:
        whitened = prepared.prepare(
            "cifar10_whitened.hdf5",
            files,
            directories,
            lambda path: _whiten(images, test_images, path),
        )
        whitened = prepared.memory_map(whitened, "features")
        images, test_images = whitened[:number], whitened[number:]
        description = (
            "GCN (scale 55), ZCA (filter bias 0.1) fitted on training and validation images"
        )
    return split(
        "cifar10",
        Split(images, labels),
        number // 10,  # 5,000
        Split(test_images, test_labels),
        files,
        description,
    )


def _extracted(directories):
    """The folder with the extracted batches, or None."""
    for directory in directories:
        for below in ("", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"):
            if (directory / below / BATCHES[0]).is_file():
                return directory / below
    return None


def _convert(paths, official, output):
    first = next(iter(paths.values()))
    with prepared.folder_beside(output) as folder, prepared.converting("CIFAR-10", first.parent):
        archive = Path(folder, data_files.WANTED["cifar10"][0])
        if official and first.name == archive.name:
            os.symlink(first.resolve(), archive)
        else:
            _repack(paths, archive)
        convert_cifar10(folder, str(output.parent), output.name)
    prepared.check("CIFAR-10", output, (3, 32, 32))


def _repack(paths, archive):
    """Writes the archive that Fuel expects with nothing in it but what `_Unpickler` admits: Fuel
    unpickles whatever it is given."""
    with contextlib.ExitStack() as stack:
        if len(paths) == 1:
            source = stack.enter_context(tarfile.open(*paths.values(), "r:gz"))
        target = stack.enter_context(tarfile.open(archive, "w:gz", compresslevel=1))
        for batch in BATCHES:
            member = f"cifar-10-batches-py/{batch}"
            if len(paths) == 1:
                if not source.getmember(member).isreg():
                    raise ValueError(f"{member} is not a regular file")
                content = source.extractfile(member).read()
            else:
                content = paths[batch].read_bytes()
            content = pickle.dumps(_batch(batch, content), protocol=2)
            info = tarfile.TarInfo(member)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))


def _batch(name, content):
    """{"data": uint8 array of shape (n, 3072), "labels": list of n ints}, or a ValueError."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch["labels"])
        kinds = images.dtype, labels.dtype.kind in "iu", images.shape
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{name}: {error}") from error
    if kinds != (np.uint8, True, (len(labels), 3072)) or labels.ndim != 1:
        raise ValueError(f"{name}: expected uint8 data of shape (n, 3072) and n integer labels")
    if not np.isin(labels, np.arange(10)).all():
        raise ValueError(f"{name}: labels from {labels.min()} to {labels.max()}; expected 0 to 9")
    return {"data": images, "labels": labels.tolist()}


class _Unpickler(pickle.Unpickler):
    """Admits arrays, numbers, strings and containers."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # numpy 2
        if (module, name) == ("_codecs", "encode"):  # bytes pickled by Python 3 for Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
        }:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data need")
        return super().find_class(module, name)


def _whiten(images, test_images, output):
    print("whitening CIFAR-10, once; this takes about half a minute", file=sys.stderr)
    mean, matrix = preprocessing.fit_zca(preprocessing.global_contrast_normalize(images, 55.0))
    images = np.concatenate([images, test_images])
    with h5py.File(output, "w") as file:
        features = file.create_dataset("features", images.shape, np.float32)
        for start in range(0, len(images), 5000):
            block = preprocessing.global_contrast_normalize(images[start : start + 5000], 55.0)
            features[start : start + 5000] = preprocessing.whiten(block, mean, matrix)
