"""Assertions that several tests share."""

import original_stack
from original_stack.errors import UserError

import numpy as np
import pytest


def refusal(load, *arguments, **options):
    """The message of the UserError that `load` raises: one line."""
    with pytest.raises(UserError) as raised:
        load(*arguments, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def same(one, other):
    """Whether two data sets have the same images and labels."""
    return all(
        np.array_equal(getattr(one, part).X, getattr(other, part).X)
        and np.array_equal(getattr(one, part).y, getattr(other, part).y)
        for part in ("train", "valid", "test")
    )


def assert_near(actual, expected, tolerance=1e-5):
    """`actual` equals `expected` up to `tolerance` times the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * abs(expected).max(initial=0)
    )
