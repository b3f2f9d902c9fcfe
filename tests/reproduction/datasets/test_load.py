"""What holds for every data set."""

import functools

import pytest
from checks import refusal

from reproduction import datasets

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


def test_an_unknown_name():
    assert (
        error("imagenet") == "unknown data set 'imagenet'; expected mnist, digits, cifar10 or svhn"
    )
