"""Count the multiplications in the Theano graph of each network that have a binary operand and
therefore become additions. BinaryConnect (section 2) claims about two thirds in training, and all
of them at test time with deterministic weights. The command writes results/multiplications.json,
which the report reads.
"""

import json
import os
import sys
from collections import Counter
from unittest import mock

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import write_atomically, writing

import lasagne
import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet.abstract_conv import (
    AbstractConv2d,
    AbstractConv2d_gradInputs,
    AbstractConv2d_gradWeights,
)

import binary_connect
from reproduction.experiments import EXPERIMENTS
from reproduction.training.model import squared_hinge

# Stochastic rows have the same products.
NETWORKS = {
    name: (EXPERIMENTS[name].row("paper", "deterministic"), EXPERIMENTS[name].build_network)
    for name in ("mnist", "cifar10", "svhn")
}
PARTS = ("forward", "backward", "weight gradient", "test", "test, element-wise")
PRODUCTS = (T.Dot, AbstractConv2d, AbstractConv2d_gradInputs, AbstractConv2d_gradWeights)
MOVES = (T.DimShuffle, T.Reshape, T.Subtensor)  # ops that do not change values


def count(hp, build_network):
    """Multiplications for one image in a training step and in a test.

    Matrix products and convolutions are counted by their definition: a convolution multiplies each
    filter with every position, including the zero border. The ops of `fused` need fewer
    multiplications. Element-wise multiplications, by which batch normalization scales each
    activation, are counted at test time only.

    Parameters
    ----------
    hp : Hyperparameters
    build_network : callable
        build_network(hp) returns the output layer.

    Returns
    -------
    Counter
        {(part, whether an operand is binary): number}. The parts are "forward", "backward" (the
        gradients that layers pass to the layers below), "weight gradient", "test" and "test,
        element-wise".
    """
    with mock.patch.dict(os.environ, BINARYCONNECT_FUSED="0"):
        network = build_network(hp)
        layers = lasagne.layers.get_all_layers(network)
        output = lasagne.layers.get_output(network)
        loss = squared_hinge(output, T.matrix(), "mean")
        if hp.binary:
            grads = binary_connect.compute_grads(loss, network)
        else:
            weights = [layer.W for layer in layers if hasattr(layer, "W")]
            grads = theano.grad(loss, weights)
        at_test = {"deterministic": True, "test_weights": "binary" if hp.binary else "real"}
        tested = lasagne.layers.get_output(network, **at_test)
        scalings = {layer: _scalings(layer) for layer in layers if hasattr(layer, "gamma")}

    sizes = {layer.W: _size(layer) for layer in layers if hasattr(layer, "W")}
    counted = Counter()
    output, *grads = _merged([output, *grads])
    forward = _products([output])
    last = [_products([grad])[-1] for grad in grads]  # the last product gives the gradient of W
    for W, node in zip(sizes, last, strict=True):
        counted["weight gradient", _operand(node, sizes)[1]] += sizes[W]
    for node in _products([output, *grads]):
        if node not in last:
            W, binary = _operand(node, sizes)
            counted["forward" if node in forward else "backward", binary] += sizes[W]
    for node in _products([tested]):
        W, binary = _operand(node, sizes)
        counted["test", binary] += sizes[W]
    for layer, number in scalings.items():
        counted["test, element-wise", False] += number * int(np.prod(layer.output_shape[1:]))
    return counted


def _size(layer):
    """Multiplications of a layer: one for each weight, and for each position of a convolution."""
    positions = layer.get_output_shape_for(layer.input_shape)[2:]
    return layer.W.get_value().size * int(np.prod(positions))


def _merged(outputs):
    """The same variables in a graph that computes nothing twice."""
    roots = theano.gof.graph.inputs(outputs)
    inputs = [root for root in roots if not isinstance(root, theano.Constant)]
    _, outputs = theano.gof.graph.clone(inputs, outputs, copy_inputs=False, copy_orphans=True)
    graph = theano.gof.FunctionGraph(inputs, outputs, clone=False)
    theano.gof.opt.MergeOptimizer().optimize(graph)
    return graph.outputs


def _products(outputs):
    """The matrix products and convolutions in the graph of some variables, in the order in which
    they are computed."""
    nodes = theano.gof.graph.io_toposort([], outputs)
    return [node for node in nodes if isinstance(node.op, PRODUCTS)]


def _operand(node, weights):
    """The weights that are an operand of a product, and whether they are binarized; (None, False)
    if no operand is weights."""
    for variable in node.inputs:
        while variable.owner and isinstance(variable.owner.op, MOVES):
            variable = variable.owner.inputs[0]
        W = getattr(variable.tag, "latent", variable)
        if W in weights:
            return W, W is not variable
    return None, False


def _scalings(layer):
    """How often a batch normalization multiplies or divides each of its inputs at test time."""
    layer.nonlinearity = lasagne.nonlinearities.identity  # Theano's ReLU would count: it halves
    x = T.TensorType("float32", [False] * len(layer.input_shape))()
    of_image, number = {x}, 0
    for node in theano.gof.graph.io_toposort([], [layer.get_output_for(x, deterministic=True)]):
        if of_image.isdisjoint(node.inputs):
            continue
        of_image.update(node.outputs)
        scalar = getattr(node.op, "scalar_op", None)
        number += isinstance(scalar, (theano.scalar.Mul, theano.scalar.TrueDiv))
    return number


def shares(counted):
    """The percentage of multiplications that have a binary operand: in a training step, and in the
    products and convolutions at test time."""

    def share(parts):
        binary = sum(counted[part, True] for part in parts)
        return 100 * binary / (binary + sum(counted[part, False] for part in parts))

    return share(("forward", "backward", "weight gradient")), share(("test",))


def show(options):
    """The command: prints a table for each network and writes the record."""
    record = {}
    for name, (hp, build_network) in NETWORKS.items():
        counted = count(hp, build_network)
        training, test = shares(counted)
        parts = {
            part: {"binary": counted[part, True], "other": counted[part, False]} for part in PARTS
        }
        record[name] = {"training": training, "test": test, "parts": parts}
        print(f"{name}: multiplications for one image")
        print(f"  {'':22}{'binary operand':>16}{'other':>16}")
        for part in PARTS:
            print(f"  {part:22}{counted[part, True]:16,}{counted[part, False]:16,}")
        print(f"  removed in training: {training:.1f}% (the paper: about two thirds)")
        print(f"  removed at test time, deterministic weights: {test:.1f}% (the paper: all)\n")
    print("Element-wise: batch normalization scales activations, which the paper does not count.")
    path = original_stack.RESULTS / "multiplications.json"
    with writing(path, "make it writable or make room"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def main(argv=None):
    return run(Parser(prog="multiplications", description=__doc__), show, argv)


if __name__ == "__main__":
    sys.exit(main())
