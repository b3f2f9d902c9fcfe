"""BinaryConnect: propagate with binarized weights; update and clip the real-valued ones.

Courbariaux, Bengio and David, 2015, arXiv:1511.00363, Algorithm 1. Names, parameters and the order
of the parameters are the same as in the released module of 2015: a script written for that module
runs on this one.
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
    """clip((x + 1) / 2, 0, 1), elementwise (section 2.2, equation 3).

    Examples
    --------
    >>> hard_sigmoid(T.constant(np.float32([-2.0, -0.5, 0.0, 1.0]))).eval().tolist()
    [0.0, 0.25, 0.5, 1.0]
    """
    return T.clip((x + 1.0) / 2.0, 0, 1)


def is_positive(x):
    """Whether x binarizes to +1, elementwise: hard_sigmoid(x) >= 1/2.

    Zero binarizes to +1, and so does a negative x for which 1 + x rounds to 1 (DEVIATIONS.md, 1).

    Parameters
    ----------
    x : float32 array or Theano expression

    Examples
    --------
    >>> is_positive(np.float32([-0.5, -1e-9, 0.0, 0.5])).tolist()
    [False, True, True, True]
    """
    return x + np.float32(1) >= np.float32(1)


def binarization(W, H, binary=True, deterministic=False, stochastic=False, srng=None):
    """Binarize real-valued weights to -H or +H (section 2.2, equations 1 and 2).

    Parameters
    ----------
    W : Theano expression of any shape
        The real-valued (latent) weights.
    H : float
        The magnitude of the binary weights.
    binary : bool
        If false, `W` is returned unchanged.
    deterministic : bool
        True at test time. Stochastically trained weights then stay real-valued (section 2.6,
        method 2); deterministically trained weights are binarized (method 1).
    stochastic : bool
        If true, a weight is +H with probability hard_sigmoid(W / H), sampled again at each
        evaluation. Otherwise it is +H if `is_positive(W / H)`.
    srng : random stream with Theano's method `binomial`, or fused.PhiloxStream
        The source of random numbers. PhiloxStream samples many times faster.

    Returns
    -------
    Theano expression of the shape of `W`
        Its `tag.latent` is `W`: `compute_grads` finds the binarizations in a loss by this tag.

    Examples
    --------
    >>> W = T.constant(np.array([-0.3, 0.0, 2.0], dtype="float32"))
    >>> binarization(W, H=0.5).eval().tolist()
    [-0.5, 0.5, 0.5]
    """
    if not binary or (deterministic and stochastic):
        return W
    if fused.binarization.applicable(W, H, srng if stochastic else None):
        Wb = fused.binarize(W, H, srng if stochastic else None)
    else:
        if stochastic:
            positive = srng.binomial(n=1, p=hard_sigmoid(W / H), size=T.shape(W))
        else:
            positive = is_positive(W / H)
        Wb = T.cast(T.switch(positive, H, -H), theano.config.floatX)
    Wb.tag.latent = W
    return Wb


def random_stream():
    """A random stream for `binarization`, seeded by Lasagne's generator."""
    seed = lasagne.random.get_rng().randint(1, 2147462579)
    return fused.PhiloxStream(seed) if fused.enabled() else RandomStreams(seed)


class _BinarizedWeights:
    """What both layers share: a mixin that comes before the Lasagne layer.

    Attributes
    ----------
    H : float
        Magnitude of the binary weights.
    W_LR_scale : float
        Factor of the updates of the weights.
    Wb : Theano expression
        The binarized weights of the last call of `get_output_for`.
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

    def _with_initial_weights(self, kwargs):
        """Arguments of the Lasagne layer; binary weights start uniform on (-H, H)."""
        if self.binary:
            kwargs.setdefault("W", lasagne.init.Uniform((-self.H, self.H)))
        return kwargs

    def _tag_weights(self):
        if self.binary:
            self.params[self.W] = {"binary"}

    def get_output_for(self, input, deterministic=False, test_weights=None, **kwargs):
        """Output of the Lasagne layer with binarized weights instead of the real-valued ones.

        Parameters
        ----------
        input : Theano expression
            Has the layer's input shape.
        deterministic : bool
            True at test time.
        test_weights : None, "binary", "real" or "ensemble"
            The weights used at test time (section 2.6): binarized by sign, real-valued, or sampled
            at each evaluation, so that the outputs of several samples can be averaged. None means
            "binary" for deterministic and "real" for stochastic BinaryConnect, as in the paper.

        Raises
        ------
        ValueError
            If `test_weights` is none of these values.
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
        The layer below, with output shape (batch, ...), or that shape.
    num_units : int
        Number of units; the output has shape (batch, num_units).
    binary : bool
        Whether weights are binarized. If false, this is Lasagne's layer.
    stochastic : bool
        Whether binarization is stochastic; otherwise it is deterministic.
    H : float or "Glorot"
        Magnitude of the binary weights. "Glorot" is sqrt(1.5 / (fan_in + fan_out)).
    W_LR_scale : float, "Glorot" or "Glorot squared"
        Factor of the updates of the weights (section 2.5). "Glorot", for Adam, is
        1 / sqrt(1.5 / (fan_in + fan_out)); "Glorot squared", for SGD and Nesterov momentum, is the
        square of that.
    **kwargs
        Passed on to :class:`lasagne.layers.DenseLayer`.

    Examples
    --------
    >>> layer = DenseLayer((None, 3), 1, stochastic=False, W=np.float32([[-0.2], [0.0], [0.7]]))
    >>> layer.get_output_for(T.constant(np.float32([[1.0, 2.0, 4.0]]))).eval().tolist()
    [[5.0]]
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
        super().__init__(incoming, num_units, **self._with_initial_weights(kwargs))
        self._tag_weights()


class _Convolution(lasagne.layers.Conv2DLayer):
    """Lasagne's layer with two additions: the fused convolution, if it computes the same, and
    `flip_filters`, which the Lasagne of the authors had."""

    def __init__(self, *args, flip_filters=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.flip_filters = flip_filters

    def get_output_for(self, input, **kwargs):
        W = self.W
        if not self.flip_filters:
            self.W = W[:, :, ::-1, ::-1]
        try:
            if not fused.convolution.applicable(self, input):
                return super().get_output_for(input, **kwargs)
            convolved = fused.conv3x3(input, self.W)
        finally:
            self.W = W
        if self.b is not None:
            bias = self.b if self.untie_biases else self.b.dimshuffle(0, "x", "x")
            convolved += bias.dimshuffle("x", 0, 1, 2)
        return self.nonlinearity(convolved)


class Conv2DLayer(_BinarizedWeights, _Convolution):
    """Convolutional layer with binarized weights.

    Input and output have shape (batch, channels, rows, columns). Fan-in is channels x filter area
    and fan-out is filters x filter area (DEVIATIONS.md, 20).

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    num_filters : int
    filter_size : int or pair of int
    binary, stochastic, H, W_LR_scale
        As in :class:`DenseLayer`.
    flip_filters : bool, optional
        Whether to convolve (the default); otherwise the layer correlates.
    **kwargs
        Passed on to :class:`lasagne.layers.Conv2DLayer`.

    Examples
    --------
    >>> layer = Conv2DLayer((None, 3, 32, 32), 16, 3, pad=1, H="Glorot")
    >>> layer.output_shape, round(float(layer.H), 4)
    ((None, 16, 32, 32), 0.0937)
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
        super().__init__(incoming, num_filters, filter_size, **self._with_initial_weights(kwargs))
        self._tag_weights()


def compute_grads(loss, network):
    """Gradients of `loss` with respect to each layer's binarized weights (Algorithm 1, step 2).

    Parameters
    ----------
    loss : Theano scalar
        A function of an output of `network`. Other outputs of the network do not matter, whether
        they are built before or after this one (DEVIATIONS.md, 3).
    network : Layer
        The output layer.

    Returns
    -------
    list of Theano expressions
        One for each of ``lasagne.layers.get_all_params(network, binary=True)``, in that order. If
        the loss uses several binarizations of the same weights, their gradients are added.

    Examples
    --------
    >>> layer = DenseLayer((None, 2), 1, stochastic=False, b=None, W=np.float32([[-0.2], [0.7]]))
    >>> loss = T.sum(layer.get_output_for(T.constant(np.float32([[1.0, 3.0]]))) ** 2)
    >>> compute_grads(loss, layer)[0].eval().tolist()
    [[4.0], [12.0]]
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
    """Scale the updates of binary weights and clip the results.

    An update W <- u becomes W <- clip(W + s (u - W), -H, H), where s is the layer's `W_LR_scale`
    (section 2.5) and H its `H` (section 2.4).

    Parameters
    ----------
    updates : dict
        {shared variable: new value}, as Lasagne's optimizers return it.
    network : Layer
        The output layer.

    Returns
    -------
    OrderedDict
        `updates`, with the values of the binary weights replaced.

    Raises
    ------
    ValueError
        If layers share weights but differ in `H` or `W_LR_scale`.

    Examples
    --------
    >>> layer = DenseLayer((None, 1), 2, W_LR_scale=4, W=np.float32([[0.25, 0.75]]))
    >>> clipping_scaling({layer.W: layer.W + 0.125}, layer)[layer.W].eval().tolist()
    [[0.75, 1.0]]
    """
    coefficients = {}
    for layer in lasagne.layers.get_all_layers(network):
        for W in layer.get_params(binary=True):
            given = layer.H, layer.W_LR_scale
            if coefficients.setdefault(W, given) != given:
                raise ValueError(
                    f"layers share the weights {W} with different (H, W_LR_scale): "
                    f"{coefficients[W]} and {given}; give them the same"
                )
    updates = OrderedDict(updates)
    for W, (H, scale) in coefficients.items():
        updates[W] = T.clip(W + scale * (updates[W] - W), -H, H)
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

    Runs of this project use `reproduction.training`, which keeps records and checkpoints.

    Parameters
    ----------
    train_fn : callable
        train_fn(X, y, LR) trains on one batch and returns its loss.
    val_fn : callable
        val_fn(X, y) returns the loss and the error (a fraction) of one batch.
    batch_size, num_epochs : int
    LR_start, LR_decay : float
        The learning rate of the first epoch, and its factor from one epoch to the next.
    X_train, X_val, X_test : arrays, lists or h5py data sets of shape (n, ...)
    y_train, y_val, y_test : arrays, lists or h5py data sets of shape (n, ...)
        `train_fn` and `val_fn` get full batches only. Training shuffles the images in each epoch
        and drops the images after the last full batch; evaluation counts every image once
        (DEVIATIONS.md, 2).
    save : callable, optional
        Called without an argument after each best epoch; `binary_net.train` needs it.
    shuffle_parts : int
        The training set is cut into this many parts, and each is shuffled separately.
    """

    def total(X, y):
        """The sum of the losses and the sum of the errors of at most `batch_size` images."""
        # The network may have a fixed batch size, so the images are repeated until they fill a
        # batch. The first `rest` images then occur once more than the others: subtract them.
        rows = np.resize(np.arange(len(X)), batch_size)
        repeats, rest = divmod(batch_size, len(X))
        sums = batch_size * np.array([float(value) for value in val_fn(X[rows], y[rows])])
        return (sums - total(X[:rest], y[:rest]) if rest else sums) / repeats

    def evaluate(X, y):
        starts = range(0, len(X), batch_size)
        batches = [slice(start, start + batch_size) for start in starts]
        loss, error = sum(total(X[batch], y[batch]) for batch in batches) / len(X)
        return loss, 100 * error

    X_train, y_train, X_val, y_val, X_test, y_test = (
        np.asarray(data) for data in (X_train, y_train, X_val, y_val, X_test, y_test)
    )
    parts = np.array_split(np.arange(len(X_train)), shuffle_parts)
    best_error, best_epoch, test_loss, test_error = np.inf, 0, np.nan, np.nan
    LR = LR_start
    for epoch in range(1, num_epochs + 1):
        started = time.monotonic()
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
        print(f"Epoch {epoch} of {num_epochs} took {time.monotonic() - started:.1f} s")
        print(f"  LR:                            {LR}")
        print(f"  training loss:                 {train_loss}")
        print(f"  validation loss:               {val_loss}")
        print(f"  validation error rate:         {val_error}%")
        print(f"  best epoch:                    {best_epoch}")
        print(f"  best validation error rate:    {best_error}%")
        print(f"  test loss:                     {test_loss}")
        print(f"  test error rate:               {test_error}%")
        LR *= LR_decay
