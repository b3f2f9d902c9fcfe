"""Arrays in MATLAB's format 5, as SciPy writes them."""

import contextlib
import io
import struct

from original_stack.errors import DAMAGE

import formats
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.datasets import matlab

IMAGES = np.arange(2 * 3 * 4 * 5).astype(np.uint8).reshape(2, 3, 4, 5)


def mat(compressed=False, **arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=compressed)
    return file


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (IMAGES, "uint8"),
        (np.array([[1.0], [2.5]]), "double"),
        (np.array([[-1], [2]], np.int16), "int16"),
        (np.array([[7, 8]], np.uint8), "uint8"),  # in its tag
        (np.zeros((0, 1), np.float32), "single"),
        (np.arange(3 * 2**20 + 5).astype(np.uint16)[np.newaxis], "uint16"),
    ],
)
def test_arrays(compressed, values, kind):
    file = mat(compressed, first=IMAGES, wanted=values, last=[[1.0]])
    variable = matlab.find(file, "wanted")
    assert (variable.shape, variable.kind) == (values.shape, kind)
    assert np.array_equal(matlab.array(variable), values)
    assert np.array_equal(matlab.array(matlab.find(file, "first")), IMAGES)  # it may come before


def test_a_variable_that_is_not_an_array_of_real_numbers():
    objects = np.empty((1, 1), object)
    objects[0, 0] = np.zeros(3)
    file = mat(complex=np.ones((2, 1)) * 1j, text="abc", cells=objects)
    for name in ("complex", "text", "cells"):
        assert matlab.find(file, name).kind is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not of MATLAB's format 5"),
        (mat().getvalue(), "wanted is missing"),
        (mat(other=IMAGES).getvalue(), "wanted is missing"),
        (mat(other=IMAGES).getvalue()[:150], "unpack requires a buffer of 8 bytes"),
        (mat(wanted=IMAGES).getvalue()[:-1], "it ends too early"),
        (
            mat(wanted=IMAGES).getvalue().replace(struct.pack("<I", 120), struct.pack("<I", 121)),
            "121 bytes for an array of shape (2, 3, 4, 5)",
        ),
        (mat(True, wanted=IMAGES).getvalue()[:-30], "it ends too early"),
        (mat(True, wanted=IMAGES).getvalue()[:140], "it ends too early"),
    ],
)
def test_damaged_files(content, reason):
    with pytest.raises(DAMAGE) as raised:
        matlab.array(matlab.find(io.BytesIO(content), "wanted"))
    assert str(raised.value) == reason


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_raises_what_reading_turns_into_a_user_error(data):
    content = mat(data.draw(st.booleans()), X=IMAGES, y=np.array([[1.0]])).getvalue()
    with contextlib.suppress(DAMAGE):
        file = io.BytesIO(data.draw(formats.damaged(content)))
        variable = matlab.find(file, data.draw(st.sampled_from("Xy")))
        assert matlab.array(variable).shape == variable.shape
