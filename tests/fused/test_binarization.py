"""The fused binarization against its plain reference, and the statistics of its samples."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import theano
import theano.tensor as T
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import binary_connect
import fused

SEEDS = (1, 2147462578)


def philox(counter, key):
    """Philox4x32-10 of counters (n, 4) with one key (2,), word by word."""
    x = [np.uint64(word) for word in np.asarray(counter, dtype="uint64").T]
    k0, k1 = (int(word) for word in key)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [
            (p1 >> shift) ^ x[1] ^ np.uint64(k0),
            p1 & low,
            (p0 >> shift) ^ x[3] ^ np.uint64(k1),
            p0 & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(x, axis=1).astype("uint32")


def uniforms(n, key, step):
    """The numbers in [0, 1) with which n weights are compared."""
    blocks = np.arange(8 * -(-n // 32), dtype="uint64")
    counters = np.stack([blocks % 2**32, blocks >> np.uint64(32)], axis=1)
    counters = np.hstack([counters, np.tile([step % 2**32, step >> 32], (len(blocks), 1))])
    words = philox(counters, (key % 2**32, key >> 32))
    # Groups of 8 counters: words 0 and 1 of each in turn, then words 2 and 3.
    draws = words.reshape(-1, 8, 2, 2).swapaxes(1, 2).reshape(-1)[:n]
    return (draws >> 8) * np.float32(2**-24)


def drawing(W, H=1.0, seed=1, stream=None):
    stream = stream or fused.PhiloxStream(seed)
    return theano.function([], fused.binarize(T.constant(W), H, stream))


def test_philox_gives_the_numbers_of_its_authors():
    # Known answers of Random123, kat_vectors.
    assert philox([[0, 0, 0, 0]], (0, 0)).tolist() == [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ]
    ones = 0xFFFFFFFF
    assert philox([[ones] * 4], (ones, ones)).tolist() == [
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    ]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox([pi], (0xA4093822, 0x299F31D0)).tolist() == [
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    ]


@pytest.mark.parametrize(
    "shape", [(0, 3), (1, 1), (5, 7), (8, 4), (33, 31), (3, 2, 3, 3), (200, 300)]
)
@pytest.mark.parametrize("H", [1.0, 0.05])
def test_samples_equal_the_reference(shape, H):
    W = np.random.RandomState(0).uniform(-1.2 * H, 1.2 * H, shape).astype("float32")
    stream = fused.PhiloxStream(seed=7)
    drawing(W, H, stream=stream)
    draw = drawing(W, H, stream=stream)  # the stream's second: key 7 + 2^32
    p = theano.function([], binary_connect.hard_sigmoid(T.constant(W) / np.float32(H)))()
    for step in range(3):
        u = uniforms(W.size, 7 + 2**32, step).reshape(shape)
        np.testing.assert_array_equal(draw(), np.where(u < p, np.float32(H), -np.float32(H)))


@pytest.fixture(scope="module")
def by_sign():
    """The fused and the plain deterministic binarization with H = 0.5."""
    W = T.tensor3("W")
    functions = [theano.function([W], binary_connect.binarization(W, np.float32(0.5)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINARYCONNECT_FUSED", "0")
        functions.append(theano.function([W], binary_connect.binarization(W, np.float32(0.5))))
    return functions


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 20)] * 3), st.permutations(range(3)))
def test_signs_equal_the_reference(by_sign, seed, shape, axes):
    values = [-np.inf, -1, -0.2, -1e-7, -1e-8, -1e-45, -0.0, 0, 1e-45, 1e-7, 3, np.nan]
    W = np.random.RandomState(seed).choice(np.float32(values), (*shape[:2], 2 * shape[2]))
    W = W[:, :, ::2].transpose(axes)
    in_c, in_theano = (function(W) for function in by_sign)
    np.testing.assert_array_equal(in_c, in_theano)


@pytest.mark.parametrize("seed", SEEDS)
def test_frequency_of_each_weight_is_its_hard_sigmoid(seed):
    W = np.linspace(-1.1, 1.1, 2000, dtype="float32")
    p = np.clip((W.astype("float64") + 1) / 2, 0, 1)
    draw, n = drawing(W, seed=seed), 4000
    frequency = sum(draw() == 1 for _ in range(n)) / n
    assert (abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_samples_are_uncorrelated(seed):
    shape, n = (256, 256), 256 * 256
    W = np.zeros(shape, dtype="float32")
    stream = fused.PhiloxStream(seed)
    draw, second = drawing(W, stream=stream), drawing(W, stream=stream)
    other_layer = drawing(W, seed=seed + 1)
    a, b, c, d = draw(), draw(), second(), other_layer()
    pairs = [(a, b), (a, c), (a, d), (b, c), (b, d)]  # steps, binarizations, layers
    pairs += [(a, np.roll(a, k)) for k in (1, 2, 4, 8, 16, 31, 32, 64, 256)]  # neighbors
    for x, y in pairs:
        assert abs((x * y).mean()) <= 5 / np.sqrt(n)


@pytest.mark.parametrize("seed", SEEDS)
def test_patterns_of_neighbors_are_equally_frequent(seed):
    draw = drawing(np.zeros((1024, 1024), dtype="float32"), seed=seed)
    pattern = (draw() > 0).reshape(-1, 8) @ (1 << np.arange(8))
    assert stats.chisquare(np.bincount(pattern, minlength=256)).pvalue > 1e-4


def test_the_same_seed_or_a_resumed_state_gives_the_same_samples():
    W = np.zeros((40, 50), dtype="float32")
    first, again, other = drawing(W, seed=3), drawing(W, seed=3), drawing(W, seed=4)
    draws = [first() for _ in range(4)]
    np.testing.assert_array_equal([again() for _ in range(4)], draws)
    assert (other() != draws[0]).mean() > 0.4
    (state,) = again.get_shared()
    assert state.get_value().tolist() == [3, 4]
    state.set_value(np.array([3, 2], dtype="uint64"))
    np.testing.assert_array_equal(again(), draws[2])


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_NUM_THREADS", "1"), ("THEANO_FLAGS", "gcc.cxxflags=-march=x86-64-v3")]
)
def test_samples_are_the_same_on_other_processors(name, value):
    code = (
        "import original_stack, zlib, numpy as np, theano, theano.tensor as T, fused\n"
        "W = T.constant(np.linspace(-1, 1, 90001, dtype='float32'))\n"
        "print(zlib.crc32(theano.function([], fused.binarize(W, 1.0, fused.PhiloxStream(5)))()))"
    )
    W = np.linspace(-1, 1, 90001, dtype="float32")
    expected = zlib.crc32(drawing(W, stream=fused.PhiloxStream(5))())
    path = str(Path(fused.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": path, name: value}
    python = [sys.executable, "-c", code]
    output = subprocess.run(python, env=environment, capture_output=True, text=True, check=True)
    assert int(output.stdout) == expected


def test_the_gradient_is_zero():
    W = theano.shared(np.ones((3, 4), dtype="float32"))
    for stream in (None, fused.PhiloxStream(1)):
        grad = theano.grad(fused.binarize(W, 1.0, stream).sum(), W)
        np.testing.assert_array_equal(grad.eval(), np.zeros((3, 4)))
