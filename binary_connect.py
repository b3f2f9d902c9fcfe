"""The method: weights binarized to forward and backward propagate, real ones updated and clipped.

BinaryConnect (Courbariaux, Bengio and David, 2015, arXiv:1511.00363), Algorithm 1. Names,
parameters and their order are those of the released module of 2015: a script written for it runs
on this one.
"""

import time
from collections import OrderedDict
from functools import reduce
from operator import add

import original_stack

import lasagne
import numpy as np
import theano
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStreams as RandomStreams

import fused

TEST_WEIGHTS = ("binary", "real", "ensemble")


def hard_sigmoid(x):
    """clip((x + 1) / 2, 0, 1) (section 2.2, equation 3), elementwise."""
    return T.clip((x + 1.0) / 2.0, 0, 1)


def binarization(W, H, binary=True, deterministic=False, stochastic=False, srng=None):
    """Binarize real-valued weights to -H or +H (section 2.2, equations 1 and 2).

    Parameters
    ----------
    W : Theano expression of any shape
        The real-valued (latent) weights.
    H : float
        The magnitude of the binary weights.
    binary : bool
        If false, `W` is returned as it is.
    deterministic : bool
        True at test time: stochastically trained weights are then used as they are, real-valued
        (section 2.6, method 2), deterministically trained ones are binarized (method 1).
    stochastic : bool
        If true, +H is drawn with probability p = hard_sigmoid(W / H), anew at each evaluation;
        else it is +H where p >= 1/2, so zero is +H (DEVIATIONS.md, 1).
    srng : random stream with Theano's interface (`binomial`), or fused.PhiloxStream
        Where stochastic draws come from; the latter's are many times faster.

    Returns
    -------
    Theano expression of the shape of `W`
        Its `tag.latent` is `W`, by which `compute_grads` finds it in a loss.

    Examples
    --------
    >>> W = T.constant(np.array([-0.3, 0.0, 2.0], dtype="float32"))
    >>> binarization(W, H=0.5).eval().tolist()
    [-0.5, 0.5, 0.5]
    """
    if not binary or (deterministic and stochastic):
        return W
    if fused.enabled() and (not stochastic or isinstance(srng, fused.PhiloxStream)):
        Wb = fused.binarize(W, H, srng if stochastic else None)
    else:
        p = hard_sigmoid(W / H)
        positive = srng.binomial(n=1, p=p, size=T.shape(W)) if stochastic else T.ge(p, 0.5)
        Wb = T.cast(T.switch(positive, H, -H), theano.config.floatX)
    Wb.tag.latent = W
    return Wb


def random_stream():
    """A stream for `binarization`, seeded by Lasagne's generator."""
    seed = lasagne.random.get_rng().randint(1, 2147462579)
    return fused.PhiloxStream(seed) if fused.enabled() else RandomStreams(seed)


class _BinarizedWeights:
    """What the two layers share; mixed in before the Lasagne layer.

    Attributes
    ----------
    H, W_LR_scale : float
        Magnitude of the binary weights; factor of the weights' updates.
    Wb : Theano expression
        The weights, binarized, of the last `get_output_for`.
    """

    def _set_up(self, binary, stochastic, H, W_LR_scale, fan_in, fan_out):
        glorot = np.sqrt(1.5 / (fan_in + fan_out))
        self.binary = binary
        self.stochastic = stochastic
        self.H = np.float32(glorot if H == "Glorot" else H)
        scales = {"Glorot": 1 / glorot, "Glorot squared": 1 / glorot**2}
        self.W_LR_scale = np.float32(scales.get(W_LR_scale, W_LR_scale))
        self._srng = random_stream()
        self.Wb = None

    def _tag(self):
        if self.binary:
            self.params[self.W] = {"binary"}

    def _initial(self, kwargs):
        """Keyword arguments of the Lasagne layer: binary weights start uniform on (-H, H)."""
        if self.binary:
            kwargs.setdefault("W", lasagne.init.Uniform((-self.H, self.H)))
        return kwargs

    def get_output_for(self, input, deterministic=False, test_weights=None, **kwargs):
        """Output of the Lasagne layer with the binarized weights in the place of the real ones.

        Parameters
        ----------
        deterministic : bool
            True at test time.
        test_weights : None, "binary", "real" or "ensemble"
            Which weights to use at test time (section 2.6): binarized by sign, real-valued, or
            drawn at each evaluation, to average the outputs of several draws. None: the first for
            deterministic, the second for stochastic BinaryConnect, as in the paper.
        """
        stochastic = self.stochastic
        if deterministic and test_weights is not None:
            if test_weights not in TEST_WEIGHTS:
                raise ValueError(
                    f"test_weights is {test_weights!r}, expected one of {TEST_WEIGHTS}"
                )
            stochastic = test_weights != "binary"
            deterministic = test_weights == "real"
        self.Wb = binarization(self.W, self.H, self.binary, deterministic, stochastic, self._srng)
        W, self.W = self.W, self.Wb
        try:
            return super().get_output_for(input, **kwargs)
        finally:
            self.W = W


class DenseLayer(_BinarizedWeights, lasagne.layers.DenseLayer):
    """Fully connected layer with binarized weights.

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, of output shape (batch, ...), or that shape.
    num_units : int
        Number of units; the output has shape (batch, num_units).
    binary : bool
        Whether weights are binarized; if false this is Lasagne's layer.
    stochastic : bool
        Stochastic or deterministic binarization.
    H : float or "Glorot"
        Magnitude of the binary weights; "Glorot" is sqrt(1.5 / (fan_in + fan_out)).
    W_LR_scale : float, "Glorot" or "Glorot squared"
        Factor of the weights' updates; "Glorot" is 1 / sqrt(1.5 / (fan_in + fan_out)), for Adam
        (section 2.5, released code), "Glorot squared" its square, for SGD and Nesterov momentum
        (section 2.5).
    **kwargs
        Passed on to :class:`lasagne.layers.DenseLayer`.
    """

    def __init__(
        self,
        incoming,
        num_units,
        binary=True,
        stochastic=True,
        H=1.0,
        W_LR_scale="Glorot",
        **kwargs,
    ):
        shape = incoming if isinstance(incoming, tuple) else incoming.output_shape
        self._set_up(binary, stochastic, H, W_LR_scale, int(np.prod(shape[1:])), num_units)
        super().__init__(incoming, num_units, **self._initial(kwargs))
        self._tag()


class _Convolution(lasagne.layers.Conv2DLayer):
    """Lasagne's layer, with the fused convolution where that computes the same."""

    def get_output_for(self, input, **kwargs):
        if not (fused.enabled() and fused.convolution.applicable(self, input)):
            return super().get_output_for(input, **kwargs)
        convolved = fused.conv3x3(input, self.W)
        if self.b is not None:
            bias = self.b if self.untie_biases else self.b.dimshuffle(0, "x", "x")
            convolved += bias.dimshuffle("x", 0, 1, 2)
        return self.nonlinearity(convolved)


class Conv2DLayer(_BinarizedWeights, _Convolution):
    """Convolutional layer with binarized weights; (batch, channels, rows, columns) in and out.

    Parameters are those of :class:`DenseLayer` and of :class:`lasagne.layers.Conv2DLayer`;
    fan_in is channels x filter area, fan_out filters x filter area.
    """

    def __init__(
        self,
        incoming,
        num_filters,
        filter_size,
        binary=True,
        stochastic=True,
        H=1.0,
        W_LR_scale="Glorot",
        **kwargs,
    ):
        shape = incoming if isinstance(incoming, tuple) else incoming.output_shape
        area = int(np.prod(lasagne.utils.as_tuple(filter_size, 2)))
        self._set_up(binary, stochastic, H, W_LR_scale, shape[1] * area, num_filters * area)
        super().__init__(incoming, num_filters, filter_size, **self._initial(kwargs))
        self._tag()


def compute_grads(loss, network):
    """Gradients of `loss` with respect to each layer's binarized weights (Algorithm 1, step 2).

    Parameters
    ----------
    loss : Theano scalar
        Built from an output of `network`; outputs built before or after it do not matter.
    network : Layer
        The output layer.

    Returns
    -------
    list of Theano expressions
        In the order of ``lasagne.layers.get_all_params(network, binary=True)``. Where a loss uses
        several binarizations of the same weights, the sum over them.
    """
    binarized = {}
    for variable in theano.gof.graph.ancestors([loss]):
        latent = getattr(variable.tag, "latent", None)
        if latent is not None:
            binarized.setdefault(latent, []).append(variable)
    weights = lasagne.layers.get_all_params(network, binary=True)
    wrt = [binarized.get(W, [W]) for W in weights]
    grads = iter(theano.grad(loss, wrt=[Wb for group in wrt for Wb in group]))
    return [reduce(add, [next(grads) for _ in group]) for group in wrt]


def clipping_scaling(updates, network):
    """Scale the updates of binary weights and clip the result: w <- clip(w + s (u(w) - w), -H, H).

    Parameters
    ----------
    updates : dict
        {shared variable: new value}, as the optimizers of Lasagne give it.
    network : Layer
        The output layer; `s` is a layer's `W_LR_scale` (section 2.5), `H` its `H` (section 2.4).

    Returns
    -------
    OrderedDict
        `updates` with those of the binary weights replaced.
    """
    updates = OrderedDict(updates)
    for layer in lasagne.layers.get_all_layers(network):
        for W in layer.get_params(binary=True):
            scaled = W + layer.W_LR_scale * (updates[W] - W)
            updates[W] = T.clip(scaled, -layer.H, layer.H)
    return updates


def train(
    train_fn,
    val_fn,
    batch_size,
    LR_start,
    LR_decay,
    num_epochs,
    X_train,
    y_train,
    X_val,
    y_val,
    X_test,
    y_test,
    save=None,
    shuffle_parts=1,
):
    """Train as the released scripts of 2015 do, printing a paragraph per epoch.

    The runs of this project go through `training.run`, which keeps records and checkpoints.

    Parameters
    ----------
    train_fn : callable
        train_fn(X, y, LR) trains on one batch and returns its loss.
    val_fn : callable
        val_fn(X, y) returns the loss and the error (a fraction) of one batch.
    batch_size, num_epochs : int
    LR_start, LR_decay : float
        Learning rate of the first epoch, and its factor from one epoch to the next.
    X_train, X_val, X_test : arrays of shape (n, ...)
    y_train, y_val, y_test : arrays of shape (n, ...)
        Training batches are full ones, in a new order each epoch; every validation and test image
        is evaluated (DEVIATIONS.md, 2).
    save : callable, optional
        Called without an argument at each best epoch (`binary_net.train` needs it).
    shuffle_parts : int
        The training set is cut into as many parts, each shuffled in itself.
    """

    def evaluate(X, y):
        sizes, results = [], []
        for start in range(0, len(X), batch_size):
            batch = slice(start, start + batch_size)
            sizes.append(len(X[batch]))
            results.append([float(value) for value in val_fn(X[batch], y[batch])])
        loss, error = np.average(results, axis=0, weights=sizes)
        return loss, 100 * error

    parts = np.array_split(np.arange(len(X_train)), shuffle_parts)
    best_error, best_epoch, test_loss, test_error = np.inf, 0, np.nan, np.nan
    LR = LR_start
    for epoch in range(1, num_epochs + 1):
        started = time.time()
        order = np.concatenate([np.random.permutation(part) for part in parts])
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        train_loss = np.mean([train_fn(X_train[batch], y_train[batch], LR) for batch in full])
        val_loss, val_error = evaluate(X_val, y_val)
        if val_error <= best_error:
            best_error, best_epoch = val_error, epoch
            test_loss, test_error = evaluate(X_test, y_test)
            if save is not None:
                save()
        print(f"Epoch {epoch} of {num_epochs} took {time.time() - started:.1f} s")
        print(f"  LR:                            {LR}")
        print(f"  training loss:                 {train_loss}")
        print(f"  validation loss:               {val_loss}")
        print(f"  validation error rate:         {val_error}%")
        print(f"  best epoch:                    {best_epoch}")
        print(f"  best validation error rate:    {best_error}%")
        print(f"  test loss:                     {test_loss}")
        print(f"  test error rate:               {test_error}%")
        LR *= LR_decay
