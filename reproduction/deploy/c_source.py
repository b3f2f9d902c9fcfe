"""A deployed network as C99: one source file and its header, for machines without Python.

The functions are in runtime/bnn.c and runtime/floats.c; this module writes the constants that they
need. Nothing is allocated at run time, and only the standard library is used.
"""

import ctypes
import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template

from original_stack.errors import UserError, write_atomically, writing

import numpy as np

from reproduction.deploy import bnn_network, network

RUNTIME = Path(__file__).parent / "runtime"
COMPILERS = ("gcc", "cc", "clang")


def write(folder, deployed, images):
    """Write a network as C, and compare the scores of both.

    Parameters
    ----------
    folder : Path
        Made if it is missing. The names of the files are data set, protocol and method.
    deployed : network.Network or bnn_network.Network
    images : uint8 array of shape (n, *image)

    Returns
    -------
    str
        The result of the comparison, in one line.

    Raises
    ------
    UserError
        See `sources` and `scores_of`; if the folder cannot be written.
    """
    name = "_".join(deployed.manifest[key] for key in ("dataset", "protocol", "method"))
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    for file, text in sources(deployed, name).items():
        with writing(folder / file, "make it writable or make room"):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / file, text.encode())
    path = folder / f"{name}.c"
    scores = scores_of(path, deployed, images)
    if scores is None:
        return f"{path}: not compared, no C compiler was found"
    return f"{path}: {network.comparison(deployed, scores, images)}"


def sources(deployed, name):
    """The files of a network.

    Parameters
    ----------
    deployed : network.Network or bnn_network.Network
    name : str
        Prefix of the files and functions, a C identifier.

    Returns
    -------
    dict
        {file name: text}: <name>.c and <name>.h.

    Raises
    ------
    UserError
        If the network has real weights, or its preprocessing needs more than a mean image.
    """
    manifest = deployed.manifest
    bnn = manifest["format"] == "bnn"
    if not bnn:
        if manifest["preprocessing"] != "centred":
            raise UserError(
                f"C cannot be written for images that are {manifest['preprocessing']}; export a "
                "run on MNIST or of method bnn"
            )
        if not all(layer["packed"] for layer in manifest["layers"]):
            raise UserError(
                f"method {manifest['method']} has no binary weights to write as C; export a run "
                "of BinaryConnect or of method bnn"
            )
    needs = (_bnn if bnn else _floats)(deployed)
    image, layers = manifest["image"], manifest["layers"]
    channels, *axes = image
    idx = [0, 0, 8, 3] if channels == 1 else [0, 0, 8, 4]
    idx += np.array(axes if channels == 1 else image, ">u4").tobytes()
    macros = {
        "LAYERS": len(layers),
        "CLASSES": layers[-1]["shape"][1],
        "PIXELS": math.prod(image),
        "IDX_HEAD": f"{{{', '.join(map(str, idx))}}}",
        **needs.macros,
    }
    header = Template((RUNTIME / "network.h").read_text()).substitute(
        macros,
        SHAPE=" x ".join(map(str, image)),
        SCORE="uint32_t" if bnn else "float",
        SCORES=": the bits of their values as floats (IEEE 754, 32 bits)" if bnn else "",
    )
    source = [
        _head(manifest, needs),
        '#include "NETWORK.h"\n\n#include <stddef.h>\n',
        "".join(f"#define {key} {value}\n" for key, value in macros.items()),
        *needs.constants,
        (RUNTIME / ("bnn.c" if bnn else "floats.c")).read_text(),
        (RUNTIME / "main.c").read_text(),
    ]
    return {
        f"{name}.c": "\n".join(source).replace("NETWORK", name),
        f"{name}.h": header.replace("NETWORK", name),
    }


@dataclass
class _Needs:
    """What the runtime needs of a network, and the facts for the head of the source."""

    constants: list  # definitions
    macros: dict
    operations: dict  # {what: number for an image}
    constant_bytes: int
    stack_bytes: int


def _head(manifest, needs):
    """The comment at the head of the source."""
    lines = [
        f"NETWORK, seed {manifest['seed']}: test error {manifest['test_error']:.2f}%.",
        "For an image:",
        *(f"{number:>15,} {operation}" for operation, number in needs.operations.items()),
        "Bytes:",
        f"{needs.constant_bytes:>15,} of constants",
        f"{needs.stack_bytes:>15,} of buffers on the stack",
        "A program that classifies a file: cc -std=c99 -O2 -DNETWORK_MAIN NETWORK.c -o classify",
    ]
    return "/* " + "\n   ".join(lines) + " */\n"


def _array(kind, name, values, form="{:#x}"):
    """A constant array of one or two dimensions."""
    sizes = "".join(f"[{n}]" for n in np.shape(values))
    rows = values if np.ndim(values) == 2 else [values]
    texts = [_joined(map(form.format, np.asarray(row).tolist())) for row in rows]
    body = "},\n{".join(texts)
    body = f"{{\n{{{body}}}\n}}" if np.ndim(values) == 2 else f"{{{body}}}"
    return f"static const {kind} {name}{sizes} = {body};\n"


def _joined(texts):
    texts = list(texts)
    lines = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
    return ",\n    ".join(lines)


def _words(bits):
    """Booleans of shape (..., n) as uint32 words (..., words): bit i in word i // 32."""
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 32)]
    packed = np.packbits(np.pad(bits, padding), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u4")


def _floats(deployed):
    """The needs of a network of binary weights."""
    layers = deployed.manifest["layers"]
    pixels = math.prod(deployed.manifest["image"])
    constants = [_array("float", "mean", deployed.arrays["mean"].ravel(), "{!r}f")]
    table, size, additions, scalings = [], 4 * pixels, pixels, 0
    for i, layer in enumerate(layers):
        if layer["kind"] != "dense":
            raise UserError("C is written for dense layers of floats only; export a run on MNIST")
        inputs, units = layer["shape"]
        bits = np.unpackbits(deployed.arrays[f"weights{i}"], count=inputs * units)
        words = _words(bits.reshape(inputs, units).T.astype(bool))
        constants.append(_array("uint32_t", f"weights{i}", words.ravel()))
        for part in ("scale", "shift"):
            constants.append(_array("float", f"{part}{i}", deployed.arrays[f"{part}{i}"], "{!r}f"))
        table.append(f"{{weights{i}, scale{i}, shift{i}, {inputs}, {units}, {layer['rectify']:d}}}")
        size += words.nbytes + 8 * units
        additions += inputs * units + units
        scalings += units
    buffer = max(pixels, *(layer["shape"][1] for layer in layers))
    return _Needs(
        constants,
        {"BUFFER": buffer, "LAYER_TABLE": ", ".join(table)},
        {
            "additions and subtractions": additions,
            "multiplications (batch normalization)": scalings,
            "divisions (pixels by 255)": pixels,
        },
        size,
        8 * buffer + 4 * layers[-1]["shape"][1],
    )


def _bnn(deployed):
    """The needs of a network of binary weights and activations."""
    manifest, arrays = deployed.manifest, deployed.arrays
    layers = manifest["layers"]
    channels, rows, columns = manifest["image"]
    if layers[0]["kind"] == "dense":
        channels, rows, columns = channels * rows * columns, 1, 1
    constants, table, buffer, size = [], [], 1, 0
    additions, popcounts, comparisons = 0, 0, 0
    for i, layer in enumerate(layers):
        W = bnn_network.unpack(arrays[f"weights{i}"], layer["shape"])
        dense, last = layer["kind"] == "dense", i == len(layers) - 1
        pool = 2 if layer["pool"] else 1
        units = W.shape[1 if dense else 0]
        W = (W.T if dense else W).reshape(units, channels, -1)
        words = _words(W.transpose(0, 2, 1))  # (units, places, channels)
        constants.append(_array("uint32_t", f"weights{i}", words.ravel()))
        size += words.nbytes
        parts = "NULL, NULL"
        if not last:
            negative = _words(bnn_network.unpack(arrays[f"negative{i}"], (units,)))
            constants.append(_array("int32_t", f"thresholds{i}", arrays[f"threshold{i}"], "{}"))
            constants.append(_array("uint32_t", f"negative{i}", negative))
            parts = f"thresholds{i}, negative{i}"
            size += 4 * units + negative.nbytes
        geometry = f"{channels}, {rows}, {columns}, {units}, {not dense:d}, {pool}"
        table.append(f"{{weights{i}, {parts}, {geometry}}}")
        taps = W.shape[2] if dense else _taps(rows, pool) * _taps(columns, pool)
        if i == 0:
            additions = units * channels * taps
        else:
            popcounts += units * words.shape[2] * taps
        if not last:
            rows, columns = (1, 1) if dense else (rows // pool, columns // pool)
            channels = units
            comparisons += units * rows * columns
            buffer = max(buffer, rows * columns * -(-units // 32))
    most = W.shape[1] * W.shape[2] * (255 if len(layers) == 1 else 1)
    sums = np.arange(-most, most + 1, 2)[:, np.newaxis] * np.ones(units, np.int32)
    scores = np.ascontiguousarray(bnn_network.normalized(sums, arrays).T)
    if not np.isfinite(scores).all():
        raise UserError("the scores of the last layer overflow; train the run again")
    constants.append(_array("uint32_t", "scores_of_sums", scores.view("<u4")))
    return _Needs(
        constants,
        {"BUFFER": buffer, "LARGEST_SUM": most, "LAYER_TABLE": ", ".join(table)},
        {
            "additions and subtractions of pixels": additions,
            "exclusive ors and population counts of 32 bits": popcounts,
            "comparisons with thresholds": comparisons,
            "multiplications": 0,
        },
        size + scores.nbytes,
        8 * buffer + 4 * units,
    )


def _taps(size, pool):
    """Number of pairs of an output position and one of three taps that lies inside, on an axis."""
    return sum(0 <= i + j < size for i in range(size // pool * pool) for j in (-1, 0, 1))


def scores_of(path, deployed, images):
    """The scores that a C file computes.

    Parameters
    ----------
    path : Path
        The C file, which has its header beside it.
    deployed : network.Network or bnn_network.Network
        The network from which the file was made.
    images : uint8 array of shape (n, *image)

    Returns
    -------
    float32 array of shape (n, classes), or None if there is no C compiler
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/network.so"
        command = [compiler, "-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
        ran = subprocess.run([*command, path, "-o", library], capture_output=True, text=True)
        if ran.returncode:
            raise UserError(f"{compiler} cannot compile {path}: {ran.stderr.partition(chr(10))[0]}")
        function = getattr(ctypes.CDLL(library), f"{path.stem}_scores")
    function.restype = None
    images = np.ascontiguousarray(images, np.uint8)
    scores = np.empty((len(images), deployed.manifest["layers"][-1]["shape"][1]), np.float32)
    for image, row in zip(images, scores, strict=True):
        function(image.ctypes.data_as(ctypes.c_void_p), row.ctypes.data_as(ctypes.c_void_p))
    return scores
