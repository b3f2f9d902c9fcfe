"""A network, its compiled functions, and the state that training changes."""

import functools
from collections import OrderedDict
from itertools import islice

import original_stack

import lasagne
import numpy as np
import theano
import theano.tensor as T

import batch_norm
import binary_connect
from fused.op import Op
from shift_based import shift_adamax

ENSEMBLE_SIZE = 16  # networks sampled for test_weights="ensemble"
OPTIMIZERS = {
    "sgd": lasagne.updates.sgd,
    "nesterov": lasagne.updates.nesterov_momentum,  # momentum 0.9
    "adam": lasagne.updates.adam,
    "shift-based adamax": shift_adamax,
}


def squared_hinge(outputs, targets, hinge, library=T):
    """Squared hinge loss, averaged over the images.

    Parameters
    ----------
    outputs, targets : Theano expressions or arrays of shape (n, classes)
        Targets are -1 or +1.
    hinge : "mean" or "sum"
        Whether the loss of an image is averaged or summed over the classes.
    library : module
        theano.tensor for expressions, numpy for arrays.
    """
    loss = library.square(library.maximum(0.0, 1.0 - targets * outputs))
    return loss.mean() if hinge == "mean" else loss.sum(axis=1).mean()


def updates_of(loss, network, hp, LR):
    """Updates of one training step. Binary weights and other parameters get separate optimizer
    states."""
    optimize = OPTIMIZERS[hp.optimizer]
    updates = OrderedDict()
    weights = lasagne.layers.get_all_params(network, binary=True)
    if weights:
        grads = binary_connect.compute_grads(loss, network)
        updates = binary_connect.clipping_scaling(optimize(grads, weights, LR), network)
    others = lasagne.layers.get_all_params(network, trainable=True)
    updates.update(optimize(theano.grad(loss, others), others, LR))
    return updates


class Model:
    """A network, its compiled functions, and the state that training changes.

    Parameters
    ----------
    network : Layer
        The output layer.
    hp : Hyperparameters
    test_weights : "binary", "real" or "ensemble"

    Attributes
    ----------
    train_step : function
        train_step(X, Y, LR) trains on one batch and returns its loss. Y consists of rows of
        `targets`.
    targets : float32 array of shape (classes, classes)
        Row i is the target of class i: +1 at i and -1 elsewhere.
    outputs : function
        outputs(X) returns the outputs of the network at test time, of shape (n, classes). With
        test_weights "ensemble", the weights are sampled again at each call.
    """

    def __init__(self, network, hp, test_weights):
        self.hp, self.network, self.test_weights = hp, network, test_weights
        self.targets = 2 * np.eye(hp.classes, dtype=np.float32) - 1
        self.samples = ENSEMBLE_SIZE if test_weights == "ensemble" else 1
        self.parameters = lasagne.layers.get_all_params(network)
        # A function is compiled when it is first needed: an evaluation never trains. But all
        # expressions are built here, because their order numbers the random streams of the layers.
        X, count = T.tensor4("X"), T.scalar("count")
        at_test = {"inputs": X, "deterministic": True, "test_weights": test_weights}
        self._train_output = X, lasagne.layers.get_output(network, X)
        self._test_output = X, lasagne.layers.get_output(network, **at_test)
        self._statistics = []
        if batch_norm.cumulative_statistics(network, count, inputs=X):
            for averages in (False, True):
                options = {"batch_norm_use_averages": averages, **at_test}
                updates = batch_norm.cumulative_statistics(network, count, **options)
                self._statistics.append(([X, count], updates))

    @functools.cached_property
    def train_step(self):
        (X, output), Y, LR = self._train_output, T.matrix("Y"), T.scalar("LR")
        loss = squared_hinge(output, Y, self.hp.hinge)
        updates = updates_of(loss, self.network, self.hp, LR)
        return theano.function([X, Y, LR], loss, updates=updates)

    @functools.cached_property
    def outputs(self):
        X, output = self._test_output
        return theano.function([X], output)

    @functools.cached_property
    def _accumulate(self):
        """The two functions of `recompute_statistics`: for a first batch, and for all batches."""
        return [theano.function(inputs, updates=updates) for inputs, updates in self._statistics]

    @functools.cached_property
    def _shared(self):
        """The shared variables of all functions, those of the network first."""
        functions = [self.train_step, self.outputs, *self._accumulate]
        shared = self.parameters + [v for f in functions for v in f.get_shared()]
        storages = {id(variable.container): variable for variable in reversed(shared)}
        return list(reversed(storages.values()))

    @property
    def kernels(self):
        """Names of the fused ops in the training step, sorted; the processor decides on some."""
        nodes = self.train_step.maker.fgraph.toposort()
        return sorted({type(node.op).__name__ for node in nodes if isinstance(node.op, Op)})

    def state(self):
        """{name: array}, a copy of everything that training changes."""
        return {f"state{i:03d}": v.get_value() for i, v in enumerate(self._shared)}

    def set_state(self, arrays):
        """Set the state to what `state` returned."""
        for i, variable in enumerate(self._shared):
            variable.set_value(arrays[f"state{i:03d}"])

    def parameter_values(self):
        """{name: array}, a copy of the network's parameters in the order of its layers."""
        return {f"{i:03d}_{p.name}": p.get_value() for i, p in enumerate(self.parameters)}

    def recompute_statistics(self, *splits):
        """Recompute the batch-norm statistics as the published MNIST code does.

        In each of `splits`, the first batch is normalized by its own statistics, and then all
        batches, the first again, by the statistics so far. Networks without
        `CumulativeBatchNormLayer` are left as they are.
        """
        if not self._statistics:
            return
        first, following = self._accumulate
        count = 0
        for split in splits:
            for i, (X, _) in enumerate(split.batches(self.hp.batch_size)):
                for function in (first, following) if i == 0 else (following,):
                    count += 1
                    function(X, count)

    def renew_statistics(self, split):
        """Replace the running statistics accumulated over sampled weights by averages computed with
        the test weights, over the full batches of `split`.

        Returns
        -------
        bool
            Whether the network has such statistics; otherwise nothing changes.
        """
        if self._statistics or not self.hp.stochastic:
            return False
        X, count = T.tensor4("X"), T.scalar("count")
        output = lasagne.layers.get_output(
            self.network,
            X,
            deterministic=True,
            test_weights=self.test_weights,
            batch_norm_use_averages=False,
            batch_norm_alpha=1 / count,
        )
        forward = theano.function([X, count], output)
        full = self.hp.steps(len(split.y))
        for i, (images, _) in enumerate(islice(split.batches(self.hp.batch_size), full)):
            forward(images, i + 1)
        return True

    def all_outputs(self, split, samples=1):
        """Outputs at test time for all images of a split.

        Parameters
        ----------
        split : datasets.Split
        samples : int
            How often the outputs of each batch are computed. Sampled weights differ each time.

        Returns
        -------
        array of shape (samples, n, classes)
        """
        batches = split.batches(max(self.hp.batch_size, 200))
        return np.concatenate([[self.outputs(X) for _ in range(samples)] for X, _ in batches], 1)

    def evaluate(self, split):
        """The loss and the error in percent over all images of a split."""
        outputs = self.all_outputs(split, self.samples).mean(axis=0)
        loss = squared_hinge(outputs, self.targets[split.y], self.hp.hinge, library=np)
        return float(loss), 100.0 * float(np.mean(outputs.argmax(axis=1) != split.y))
