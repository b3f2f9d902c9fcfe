"""Makes, checks and runs the ONNX or QONNX file of a graph that onnx_graph.py describes. This is a
script of its own, for the environment of requirements-onnx.lock.

    python onnx_file.py FOLDER

FOLDER has graph.json, constants.npz and images.npy; network.onnx and scores.npy are written there.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 28
# QONNX's tools know only older sets of operators. Since set 13, a sum takes its axes as an input.
QONNX_OPSET = 13
DOMAIN = "qonnx.custom_op.general"  # of BipolarQuant
BATCH = 100  # images at a time for a QONNX graph


def model(graph, constants, images):
    """The ModelProto of a graph.

    Parameters
    ----------
    graph : dict
        `image` ([channels, rows, columns]), `classes`, `text`, `qonnx` (whether it is QONNX),
        `nodes` ([operator, names of inputs, names of outputs, attributes]).
    constants : dict of arrays
        {name: array}
    images : int or str
        The number of images in a batch, or a name if any number is allowed.
    """
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [images, *graph["image"]])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [images, graph["classes"]])
    nodes = [
        helper.make_node(
            operator,
            inputs,
            outputs,
            domain=DOMAIN if operator == "BipolarQuant" else None,
            **attributes,
        )
        for operator, inputs, outputs, attributes in graph["nodes"]
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    opset = helper.make_opsetid("", QONNX_OPSET if graph["qonnx"] else OPSET)
    made = helper.make_model(
        helper.make_graph(nodes, "binaryconnect", [pixels], [scores], initializers),
        opset_imports=[opset] + [helper.make_opsetid(DOMAIN, 1)] * graph["qonnx"],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="binaryconnect",
        doc_string=graph["text"],
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made, images):
    """The scores of an ONNX model, as onnxruntime computes them: float32 (n, classes), for images
    as uint8 (n, channels, rows, columns)."""
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([session.run(None, {"pixels": part})[0] for part in parts])


def run_qonnx(graph, constants, images):
    """The scores of a QONNX graph, as the package qonnx computes them; see `run`."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(model(graph, constants, BATCH)).transform(InferShapes())
    scores = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        full = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), np.uint8)])
        outputs = execute_onnx(wrapped, {"pixels": full})
        scores.append(outputs["scores"][: len(part)])
    return np.concatenate(scores)


def main(folder):
    graph = json.loads((folder / "graph.json").read_text())
    with np.load(folder / "constants.npz") as file:
        constants = dict(file)
    images = np.load(folder / "images.npy")
    if graph["qonnx"]:
        made = model(graph, constants, 1)  # hardware takes one image at a time
        scores = run_qonnx(graph, constants, images)
    else:
        made = model(graph, constants, "images")
        scores = run(made, images)
    (folder / "network.onnx").write_bytes(made.SerializeToString())
    np.save(folder / "scores.npy", scores)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
