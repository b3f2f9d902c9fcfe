"""fused.xnor against products of integers by numpy, exactly, for each kernel that this
processor has."""

import os
import re
from pathlib import Path

import original_stack

import numpy as np
import pytest
import theano
from checks import convolution, python
from hypothesis import given, settings
from hypothesis import strategies as st

from fused import xnor

SIZES = st.one_of(st.integers(1, 20), st.integers(1, 400))
RANDOM = st.integers(0, 2**32 - 1).map(np.random.RandomState)
few = settings(max_examples=25, deadline=None, database=None)


def with_kernel(kernel, function):
    """The result of `function` with BINARYCONNECT_XNOR=`kernel`; "" is the default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINARYCONNECT_XNOR", kernel)
        return function()


def compiled(output):
    """A function without inputs; not optimized, since that would compute the result at once."""
    return theano.function([], output, mode=theano.Mode(optimizer=None))


@pytest.fixture(scope="module")
def kernels():
    return ["", *xnor.kernels()]


def assert_each_gives(kernels, output, expected):
    function = compiled(output)
    for kernel in kernels:
        actual = with_kernel(kernel, function)
        assert actual.dtype == output.dtype
        np.testing.assert_array_equal(actual, expected, err_msg=kernel)


def signs(random, *shape):
    return random.choice([-1, 1], shape)


def unpack(words, n):
    """Words (..., words) to +-1 (..., n)."""
    bits = words[..., np.newaxis] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    flat = bits.reshape(*words.shape[:-1], 64 * words.shape[-1])
    return 2 * flat[..., :n].astype(int) - 1


def test_kernels_of_this_processor(kernels):
    flags = re.search(r"^flags.*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    instructions = {"avx512": "avx512_vpopcntdq", "avx512bw": "avx512bw", "avx2": "avx2"}
    expected = [kernel for kernel, needed in instructions.items() if needed in flags]
    assert kernels == ["", *expected, "plain"]


def test_other_kernels():
    bits = np.zeros((1, 1), np.uint64)
    function = compiled(xnor.dot(bits, xnor.panels(bits), 1, 1))
    with pytest.raises(ValueError, match="^BINARYCONNECT_XNOR is 'neon', expected avx512, avx"):
        with_kernel("neon", function)


@few
@given(RANDOM, st.integers(0, 20), SIZES)
def test_pack(random, rows, n):
    x = random.normal(size=(rows, n)).astype("float32")
    x[random.rand(rows, n) < 0.2] = random.choice([0.0, -0.0])
    expected = xnor.pack_bits(x >= 0)
    np.testing.assert_array_equal(unpack(expected, n), np.where(x >= 0, 1, -1))
    np.testing.assert_array_equal(compiled(xnor.pack(x))(), expected)


@few
@given(RANDOM, st.integers(0, 20), SIZES)
def test_planes(random, rows, n):
    pixels = random.randint(0, 256, (rows, n)).astype("uint8")
    bits = unpack(compiled(xnor.planes(pixels))(), n)
    expected = 2 * pixels.astype(int) - 255
    np.testing.assert_array_equal(np.tensordot(2 ** np.arange(8), bits, ([0], [1])), expected)


@few
@given(RANDOM, SIZES, SIZES, SIZES)
def test_dot(kernels, random, rows, inputs, units):
    x, W = signs(random, rows, inputs), signs(random, units, inputs)
    panels = xnor.panels(xnor.pack_bits(W > 0))
    output = xnor.dot(xnor.pack_bits(x > 0), panels, inputs, units)
    assert_each_gives(kernels, output, x @ W.T)


@few
@given(RANDOM, SIZES, SIZES, SIZES)
def test_dot_of_pixels(kernels, random, rows, inputs, units):
    pixels, W = random.randint(0, 256, (rows, inputs)), signs(random, units, inputs)
    panels = xnor.panels(xnor.pack_bits(W > 0))
    output = xnor.dot(xnor.planes(pixels.astype("uint8")), panels, inputs, units)
    assert_each_gives(kernels, output, (2 * pixels - 255) @ W.T)


def test_rows_without_inputs():
    bits, panels = np.zeros((3, 0), np.uint64), xnor.panels(np.zeros((9, 0), np.uint64))
    assert panels.shape == (2, 0, xnor.PANEL)
    assert np.array_equal(compiled(xnor.dot(bits, panels, 0, 9))(), np.zeros((3, 9)))


@pytest.mark.parametrize("rows", [1, 67])
def test_counts_do_not_overflow(kernels, rows):
    """Every bit differs, which gives the largest counts, over many words and blocks of weights."""
    inputs, units = 31 * 64 * 9 + 5, 300
    bits = xnor.pack_bits(np.ones((rows, inputs)))
    panels = xnor.panels(np.zeros((units, xnor.words(inputs)), np.uint64))
    expected = np.full((rows, units), -inputs)
    assert_each_gives(kernels, xnor.dot(bits, panels, inputs, units), expected)
    pixels = np.full((rows, inputs), 255, "uint8")
    planes = xnor.planes(pixels)
    assert_each_gives(kernels, xnor.dot(planes, panels, inputs, units), 255 * expected)


# Beside the edges of blocks of rows (32, 128, 256), of pairs, of vectors of units (32, 96, 512) and
# of words that are summed together (3, 64, 1023).
EDGES = [
    *((rows, 200, 70) for rows in (31, 32, 33, 34, 127, 129, 255, 257)),
    *((40, 200, units) for units in (1, 31, 33, 95, 97, 129, 255, 256, 257, 511, 513, 1025)),
    *(
        (33, 64 * words - odd, 260)
        for words in (1, 2, 3, 4, 15, 16, 17, 63, 64, 65)
        for odd in (0, 1)
    ),
    *((32, 64 * words, 300) for words in (1022, 1023, 1024, 1025)),
]


@pytest.mark.parametrize("all_differ", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "units"), EDGES)
def test_edges_of_blocks(kernels, rows, inputs, units, all_differ):
    random = np.random.RandomState(rows + inputs + units)
    x, W = signs(random, rows, inputs), signs(random, units, inputs)
    if all_differ:
        x, W = np.ones_like(x), -np.ones_like(W)
    panels = xnor.panels(xnor.pack_bits(W > 0))
    output = xnor.dot(xnor.pack_bits(x > 0), panels, inputs, units)
    assert_each_gives(kernels, output, np.float64(x) @ W.T)


IMAGES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))  # batch, rows, columns


@few
@given(RANDOM, IMAGES, st.integers(1, 150), st.integers(1, 70))
def test_convolve(kernels, random, images, channels, filters):
    batch, rows, columns = images
    x, W = signs(random, batch, channels, rows, columns), signs(random, filters, channels, 3, 3)
    weights = xnor.pack_bits(W.transpose(0, 2, 3, 1) > 0).reshape(filters, -1)
    bits = xnor.pack_bits(x.transpose(0, 2, 3, 1) > 0)
    output = xnor.convolve(bits, xnor.panels(weights), channels, filters)
    assert_each_gives(kernels, output, convolution(x, W))


@few
@given(RANDOM, IMAGES, st.integers(1, 20), st.integers(1, 70))
def test_convolve_pixels(kernels, random, images, channels, filters):
    batch, rows, columns = images
    pixels = random.randint(0, 256, (batch, channels, rows, columns))
    W = signs(random, filters, channels, 3, 3)
    weights = xnor.pack_bits(W.transpose(0, 2, 3, 1).reshape(filters, -1) > 0)
    images = pixels.astype("uint8")
    output = xnor.convolve_pixels(images, xnor.panels(weights), channels, filters)
    assert_each_gives(kernels, output, convolution(2 * pixels - 255, W))


@few
@given(RANDOM, IMAGES, st.integers(1, 150))
def test_threshold_and_pool(random, images, units):
    batch, rows, columns = images
    sums = random.randint(-5, 6, (batch, rows, columns, units)).astype("int32")
    thresholds = random.randint(-6, 7, units).astype("int32")
    negative = random.rand(units) < 0.5

    def signs_of(sums):
        return np.where((sums >= thresholds) ^ negative, 1, -1)

    directions = xnor.pack_bits(negative)
    bits = xnor.threshold(sums, thresholds, directions)
    thresholded, pooled = compiled([bits, xnor.pool(bits, directions)])()
    np.testing.assert_array_equal(thresholded, xnor.pack_bits(signs_of(sums) > 0))
    even = sums[:, : rows // 2 * 2, : columns // 2 * 2]
    windows = even.reshape(batch, rows // 2, 2, columns // 2, 2, units)
    expected = xnor.pack_bits(signs_of(windows.max(axis=(2, 4))) > 0)
    np.testing.assert_array_equal(pooled, expected)


def test_non_contiguous(kernels):
    random = np.random.RandomState(0)
    x, W = signs(random, 11, 150), signs(random, 21, 150)
    panels = xnor.panels(xnor.pack_bits(W > 0))
    bits = theano.shared(xnor.pack_bits(x > 0))[::-2]
    assert_each_gives(kernels, xnor.dot(bits, panels, 150, 21), x[::-2] @ W.T)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            lambda bits, panels: xnor.dot(bits, panels, 129, 9),
            "xnor: rows of 2 words do not hold 129 inputs",
        ),
        (
            lambda bits, panels: xnor.dot(bits, panels, 128, 17),
            "xnor: panels of shape (2, 2, 8) do not fit 17 units and rows of 2 words, expected "
            "(3, 2, 8)",
        ),
        (
            lambda bits, panels: xnor.convolve(bits.dimshuffle(0, "x", "x", 1), panels, 130, 9),
            "xnor: pixels of 2 words do not hold 130 channels",
        ),
        (
            lambda bits, panels: xnor.convolve(bits.dimshuffle(0, "x", "x", 1), panels, 128, 9),
            "xnor: panels of shape (2, 2, 8) do not fit 9 units and rows of 18 words, expected "
            "(2, 18, 8)",
        ),
        (
            lambda bits, panels: xnor.threshold(
                xnor.dot(bits, panels, 128, 9), np.zeros(8, "int32"), np.zeros(1, "uint64")
            ),
            "xnor: 8 thresholds and 1 words of directions do not fit 9 units",
        ),
        (
            lambda bits, panels: xnor.pool(bits.dimshuffle(0, "x", "x", 1), np.zeros(1, "uint64")),
            "xnor: 1 words of directions do not fit pixels of 2",
        ),
    ],
)
def test_arrays_that_do_not_fit(output, message):
    bits = theano.shared(np.zeros((3, 2), np.uint64))
    panels = xnor.panels(np.zeros((9, 2), np.uint64))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        theano.function([], output(bits, panels))()


def test_other_types():
    with pytest.raises(TypeError, match=r"^xnor\.pack takes float32 2; given float64 2$"):
        xnor.pack(np.zeros((2, 2)))


def test_memory_stays():
    """Many calls, with outputs of changing shape and with errors, do not make the process grow."""

    def resident():
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    random = np.random.RandomState(0)
    pixels = theano.tensor.TensorType("uint8", (False,) * 4)()
    weights = xnor.panels(xnor.pack_bits(random.rand(64, 27) < 0.5))
    sums = xnor.convolve_pixels(pixels, weights, 3, 64)
    directions = np.zeros(1, np.uint64)
    bits = xnor.pool(xnor.threshold(sums, np.zeros(64, np.int32), directions), directions)
    sums = xnor.convolve(bits, xnor.panels(xnor.pack_bits(np.ones((64, 576)))), 64, 64)
    rows = xnor.threshold(sums, np.zeros(64, np.int32), directions).flatten(2)
    sums = xnor.dot(rows, xnor.panels(xnor.pack_bits(np.ones((64, 16 * 64)))), 16 * 64, 64)
    function = theano.function([pixels], [sums, xnor.pack(sums.astype("float32"))])

    def calls(n):
        for i in range(n):
            function(np.zeros((5 + i % 3, 3, 8, 8), np.uint8))
        for _ in range(n // 20):
            with pytest.raises(ValueError, match="^xnor: images have 4 channels, expected 3"):
                function(np.zeros((200, 4, 8, 8), np.uint8))
            with pytest.raises(ValueError, match="^xnor: rows of 8 words"):
                function(np.zeros((200, 3, 8, 4), np.uint8))

    calls(200)
    before = resident()
    calls(1000)
    assert resident() - before < 2**20


def test_compiles_where_the_compiler_checks_memcpy(tmp_path):
    """As Ubuntu's compiler does by itself."""
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\nexec g++ -D_FORTIFY_SOURCE=2 "$@"\n')
    compiler.chmod(0o755)
    code = (
        "import original_stack, numpy as np, theano\n"
        "from fused import xnor\n"
        "bits = xnor.pack_bits(np.ones((40, 100), 'int8'))\n"
        "product = xnor.dot(theano.shared(bits), theano.shared(xnor.panels(bits)), 100, 40)\n"
        "print(np.unique(theano.function([], product)()))"
    )
    done = python(
        "-c", code, THEANO_FLAGS=f"cxx={compiler}", BINARYCONNECT_CACHE=str(tmp_path / "cache")
    )
    assert done.stdout == "[100]\n", done.stderr
