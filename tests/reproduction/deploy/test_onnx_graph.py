"""Networks as ONNX and QONNX, run by onnxruntime and qonnx, equal the original networks."""

import os
import subprocess

import formats
import numpy as np
import pytest
from checks import refusal

from reproduction.deploy import bnn_network, onnx_graph
from reproduction.deploy.network import Network

ONNX = os.environ.get("BINARYCONNECT_ONNX")
with_onnx = pytest.mark.skipif(
    ONNX is None, reason="BINARYCONNECT_ONNX names no Python of requirements-onnx.lock"
)


def bnn(image, shapes, pools=None):
    pools = pools or [False] * len(shapes)
    return bnn_network.Network(*formats.random_bnn(image, shapes, pools))


def floats(image, shapes, pools=None, **options):
    pools = pools or [False] * len(shapes)
    return Network(*formats.random_floats(image, shapes, pools, **options))


def pixels_of(network, n=40):
    shape = (n, *network.manifest["image"])
    return np.random.RandomState(2).randint(0, 256, shape).astype(np.uint8)


COLORS = {
    "image": [3, 32, 32],
    "shapes": [[5, 3, 3, 3], [7, 5, 3, 3], [448, 9], [9, 10]],
    "pools": [True, True, False, False],
}
NETWORKS = {
    "dense bnn": lambda: bnn([1, 28, 28], [[784, 37], [37, 64], [64, 10]]),
    "one layer bnn": lambda: bnn([1, 28, 28], [[784, 10]]),
    "convolutions bnn": lambda: bnn(  # odd borders are ignored, maxima are of negative units too
        [3, 11, 9],
        [[5, 3, 3, 3], [70, 5, 3, 3], [19, 70, 3, 3], [76, 67], [67, 10]],
        [False, True, True, False, False],
    ),
    "centred": lambda: floats([1, 28, 28], [[784, 37], [37, 65], [65, 10]]),
    "whitened": lambda: floats(**COLORS, preprocessing="whitened"),
    "contrast-normalized": lambda: floats(**COLORS, preprocessing="contrast-normalized"),
    "all channels": lambda: floats(**COLORS, preprocessing="contrast-normalized, all channels"),
}
REAL = {
    "real": lambda: floats([1, 28, 28], [[784, 37], [37, 10]], packed=False),
    "real convolutions": lambda: floats(
        **COLORS, preprocessing="contrast-normalized", packed=False
    ),
}


def compare(tmp_path, network, qonnx):
    pixels = pixels_of(network, 130)  # more than one batch, of which the last is not full
    if network.manifest["format"] != "bnn":
        pixels[3] = 77  # an image without contrast
    expected = network.outputs(pixels)
    assert np.ptp(expected, axis=0).max() > 0.1  # the images make a difference
    line = onnx_graph.write(tmp_path / "file", network, pixels, qonnx)
    content = (tmp_path / "file").read_bytes()
    scores = onnx_graph.make(onnx_graph.graph(network, qonnx), pixels)[1]
    start = f"{tmp_path}/file: {len(content):,} bytes; "
    if network.manifest["format"] == "bnn":
        assert scores.tobytes() == expected.tobytes()
        assert line == f"{start}scores equal, bit for bit: 130 of 130 test images"
    else:
        largest = np.abs(scores - expected).max()
        assert largest < 2e-5 * np.abs(expected).max()
        assert line == (
            f"{start}scores differ by at most {largest:.1e}, classes equal: 130 of 130 test images"
        )


@with_onnx
@pytest.mark.parametrize("name", [*NETWORKS, *REAL])
def test_scores(tmp_path, name):
    compare(tmp_path, (NETWORKS | REAL)[name](), qonnx=False)


@with_onnx
@pytest.mark.parametrize("name", NETWORKS)
def test_qonnx_scores(tmp_path, name):
    compare(tmp_path, NETWORKS[name](), qonnx=True)


DESCRIBE = """
import sys, onnx
model = onnx.load(sys.argv[1])
for value in (*model.graph.input, *model.graph.output):
    tensor = value.type.tensor_type
    print(value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim])
print([(opset.domain, opset.version) for opset in model.opset_import], model.doc_string)
print(sorted({(node.domain, node.op_type) for node in model.graph.node}))
"""


@with_onnx
@pytest.mark.parametrize("qonnx", [False, True])
def test_file(tmp_path, qonnx):
    network = NETWORKS["convolutions bnn"]()
    onnx_graph.write(tmp_path / "file", network, pixels_of(network), qonnx)
    done = subprocess.run(
        [ONNX, "-c", DESCRIBE, tmp_path / "file"], capture_output=True, text=True, check=True
    )
    images = 1 if qonnx else "images"
    pixels, scores, opsets, operators = done.stdout.splitlines()
    assert pixels == f"pixels 2 {[images, 3, 11, 9]}"
    assert scores == f"scores 1 {[images, 10]}"
    expected = [("", 13), ("qonnx.custom_op.general", 1)] if qonnx else [("", 28)]
    assert opsets == f"{expected} mnist, p-1, m, seed 1: test error 1.23%"
    standard = ["Add", "Cast", "Conv", "Flatten", "MatMul", "MaxPool", "Mul", "Sub"]
    standard += [] if qonnx else ["GreaterOrEqual", "Where", "Xor"]
    expected = sorted(("", operator) for operator in standard)
    expected += [("qonnx.custom_op.general", "BipolarQuant")] * qonnx
    assert operators == str(expected)


# What a reader of QONNX does first.
READ = """
import sys
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.cleanup import cleanup_model
model = cleanup_model(ModelWrapper(sys.argv[1])).transform(InferDataTypes())
for node in model.get_nodes_by_op_type("BipolarQuant"):
    print(model.get_tensor_shape(node.output[0]), model.get_tensor_datatype(node.output[0]))
"""


@with_onnx
def test_types_of_qonnx(tmp_path):
    network = NETWORKS["dense bnn"]()
    onnx_graph.write(tmp_path / "file", network, pixels_of(network), True)
    done = subprocess.run(
        [ONNX, "-c", READ, tmp_path / "file"], capture_output=True, text=True, check=True
    )
    shapes = [[784, 37], [1, 37], [37, 64], [1, 64], [64, 10]]
    assert sorted(done.stdout.splitlines()) == sorted(f"{shape} BIPOLAR" for shape in shapes)


def test_real_weights_are_refused_as_qonnx():
    assert refusal(onnx_graph.graph, REAL["real"](), qonnx=True) == (
        "method m has no binary weights to write as QONNX; export it as ONNX, or a "
        "run of BinaryConnect or of method bnn"
    )


def test_without_the_environment(monkeypatch):
    monkeypatch.delenv("BINARYCONNECT_ONNX", raising=False)
    assert refusal(onnx_graph.make, onnx_graph.graph(REAL["real"]()), None) == (
        "there is no ONNX here; use ./reproduce export, which installs it"
    )


@pytest.mark.parametrize(
    ("said", "reason"), [("echo Traceback, >&2; echo No room >&2;", "No room"), ("", "status 3")]
)
def test_an_environment_that_fails(tmp_path, monkeypatch, said, reason):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{said} exit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("BINARYCONNECT_ONNX", str(python))
    images = np.zeros((1, 1, 28, 28), np.uint8)
    assert refusal(onnx_graph.make, onnx_graph.graph(REAL["real"]()), images) == (
        f"{python} did not make the file: {reason}"
    )


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "make", lambda *_: (b"", None))
    path = tmp_path / "missing/file"
    assert refusal(onnx_graph.write, path, REAL["real"](), None) == (
        f"cannot write {path}: No such file or directory; make its folder first or name another"
    )
