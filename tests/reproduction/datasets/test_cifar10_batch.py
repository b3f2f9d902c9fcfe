"""Batches of CIFAR-10 are read; other pickles are refused."""

import contextlib
import os
import pickle
import struct

from original_stack.errors import DAMAGE

import formats
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.datasets import cifar10_batch

IMAGES = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [IMAGES, np.asfortranarray(IMAGES)])
def test_every_protocol(protocol, images):
    batch = {
        "batch_label": "training batch 1 of 5",
        "labels": [9, 0],
        "data": images,
        "filenames": ["a.png", "b.png"],
        "bytes": b"\x00\xff",
        "more": (1, (2, 3, 4, 5), -7, 2**40, True, None, [], {}),
    }
    read = cifar10_batch.read(pickle.dumps(batch, protocol))
    assert read.keys() == {"data", "labels"}
    assert read["labels"] == [9, 0]
    assert read["data"].dtype == np.uint8
    assert np.array_equal(read["data"], images)


def test_a_batch_that_python_2_wrote():
    """Protocol 2 with byte strings, as in the official files."""

    minus_1 = b"J\xff\xff\xff\xff"
    state = b"K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    state += b"(K\x03U\x01|NNN" + 2 * minus_1 + b"K\x00tb\x89T" + struct.pack("<i", 6144)
    content = b"\x80\x02}q\x01(U\x04datacnumpy.core.multiarray\n_reconstruct\n"
    content += b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(" + state + IMAGES.tobytes() + b"tb"
    content += b"U\x06labels]q\x02(K\x03K\x04eu."
    expected = pickle.loads(content, encoding="latin1")
    assert expected["labels"] == [3, 4]
    assert np.array_equal(expected["data"], IMAGES)
    read = cifar10_batch.read(content)
    assert read["labels"] == expected["labels"]
    assert np.array_equal(read["data"], IMAGES)


def test_labels_in_an_array():
    labels = np.array([1, 2], np.uint8)
    content = pickle.dumps({"data": IMAGES, "labels": labels})
    assert cifar10_batch.read(content)["labels"] == [1, 2]


class Hostile:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_called(tmp_path):
    trap = tmp_path / "trap"
    content = pickle.dumps({"data": IMAGES, "labels": [1, 2], "more": Hostile(trap)})
    with pytest.raises(ValueError, match=r"^it asks for posix\.mkdir, which data do not need$"):
        cifar10_batch.read(content)
    assert not trap.exists()
    assert pickle.loads(content)["more"] is None  # the trap works
    assert trap.exists()


def array(shape, kind, content):
    """A pickle of an array with this state."""
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    state = b"(I1\n(%bt%bI00\n%bt" % (shape, kind, content)
    return b"(dS'labels'\n(lsS'data'\n" + start + state + b"bs."


def kind(name=b"u1", rest=b"NNNI-1\nI-1\nI0\n"):
    return b"cnumpy\ndtype\n(S'%b'\nI0\nI1\ntR(I3\nS'|'\n%btb" % (name, rest)


SHAPES = "expected uint8 data of shape (n, 3072) and n integer labels"
# An item size and a hidden field of objects, instead of those of uint8.
WIDE = kind(rest=b"NNNI64\nI8\nI63\n")
FIELD = kind(rest=b"N(S'a'\nt(dS'a'\nNsI8\nI8\nI63\n")


def test_the_state_of_a_type_is_ignored():
    for state in (WIDE, FIELD):
        images = cifar10_batch.read(array(b"I0\nI3072\n", state, b"S''\n"))["data"]
        assert images.dtype == np.uint8
        assert images.shape == (0, 3072)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (array(b"I4\n", WIDE, b"S'abcd'\n"), SHAPES),
        (array(b"I4\n", FIELD, b"S'abcd'\n"), SHAPES),
        (array(b"I1\n", kind(b"O8"), b"(l"), "an array of type O8; expected uint8"),
        (array(b"I1\n", b"cnumpy\ndtype\n", b"S'a'\n"), "an array without a type"),
        (array(b"I9\nI3072\n", kind(), b"S'abc'\n"), "cannot reshape array of size 3"),
        (array(b"I9\nI3072\n", kind(), b"I5\n"), "a bytes-like object is required"),
        (array(b"I1\n", kind(), b"(l"), "a bytes-like object is required"),
        (b"cnumpy\nload\n.", "it asks for numpy.load, which data do not need"),
        (b"\x8c\x05posix\x8c\x06system\x93.", "it asks for posix.system, which data do not need"),
        (b"Pabc\n.", "it has PERSID, which data do not need"),
        (b"NQ.", "it has BINPERSID, which data do not need"),
        (b"(iposix\nsystem\n.", "it has INST, which data do not need"),
        (b"\x82\x01.", "it has EXT1, which data do not need"),
        (b"\x97.", "it has NEXT_BUFFER, which data do not need"),
        (b"cnumpy\ndtype\n)\x81.", "it has NEWOBJ, which data do not need"),
        (b"G" + bytes(8) + b".", "it has BINFLOAT, which data do not need"),
        (b"Iabc\n.", "invalid literal for int"),
        (b"N.N", "1 bytes after its end"),
        (b"NN.", "too many values to unpack"),
        (b"(d", "pickle exhausted before seeing STOP"),
        (b"(d(NNtNs.", "a key that is neither text nor a number"),
        # A tuple so deep that its hash exhausts the stack.
        (b"})" + b"\x85" * 10**5 + b"Ns.", "a key that is neither text nor a number"),
        (b"\x8e" + struct.pack("<Q", 2**62) + b"abc.", f"expected {2**62} bytes in a bytes8"),
        (b"\x96" + struct.pack("<Q", 2**62) + b"abc.", f"expected {2**62} bytes in a bytearray8"),
        (b"Nr\xff\xff\xff\xff.", "'NoneType' object is not subscriptable"),
        (b"(dS'data'\nNsS'labels'\n(ls.", "'NoneType' object has no attribute 'pixels'"),
        (pickle.dumps({"labels": []}), "'data'"),
        (pickle.dumps({"data": IMAGES, "labels": [1]}), SHAPES),
        (pickle.dumps({"data": IMAGES, "labels": [1, True]}), SHAPES),
        (
            pickle.dumps({"data": IMAGES.astype(float), "labels": [1, 2]}),
            "an array of type f8; expected uint8",
        ),
        (
            pickle.dumps({"data": IMAGES, "labels": [1, 259]}),
            "labels from 1 to 259; expected 0 to 9",
        ),
        (
            pickle.dumps({"data": IMAGES, "labels": [-1, 2]}),
            "labels from -1 to 2; expected 0 to 9",
        ),
    ],
)
def test_a_batch_of_anything_else(content, reason):
    with pytest.raises(DAMAGE) as raised:
        cifar10_batch.read(content)
    assert reason in str(raised.value)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_raises_what_reading_turns_into_a_user_error(data):
    batch = {"data": IMAGES, "labels": [1, 2], "filenames": ["a", "b"]}
    content = pickle.dumps(batch, data.draw(st.integers(0, 5)))
    with contextlib.suppress(DAMAGE):
        read = cifar10_batch.read(data.draw(formats.damaged(content)))
        assert read["data"].dtype == np.uint8
        assert read["data"].shape == (len(read["labels"]), 3072)
