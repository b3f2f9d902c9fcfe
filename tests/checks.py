"""Assertions that several tests share, and what they compare with or run."""

import os
import subprocess
import sys

from original_stack import ROOT
from original_stack.errors import UserError

import formats
import numpy as np
import pytest

from reproduction.deploy import predict


def refusal(load, *arguments, **options):
    """The message of the UserError that `load` raises: one line."""
    with pytest.raises(UserError) as raised:
        load(*arguments, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def assert_network_refused(path, manifest, arrays, reason):
    """`predict` calls an exported network of this content damaged, for this reason."""
    assert refusal(predict.load, formats.exported(path, manifest, arrays)) == (
        f"{path} is damaged ({reason}); expected a file of ./reproduce export, make it again from "
        "its run"
    )


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


def convolution(x, W):
    """True convolution with a zero border, by numpy: (batch, channels, rows, columns) to (batch,
    rows, columns, filters)."""
    _, _, rows, columns = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        np.einsum(
            "bcrs,fc->brsf",
            padded[:, :, 2 - i : 2 - i + rows, 2 - j : 2 - j + columns],
            W[:, :, i, j],
        )
        for i in range(3)
        for j in range(3)
    )


def python(*arguments, **environment):
    """Run Python as `./reproduce python` does, before the environment is settled."""
    settled = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    settled += ("THEANO_FLAGS", "OPENBLAS_CORETYPE")
    env = {k: v for k, v in os.environ.items() if k not in settled}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**env, "PYTHONPATH": f"{ROOT}:{ROOT}/original_stack/site", **environment},
        capture_output=True,
        text=True,
    )


def printed_with_threads(code, **environment):
    """What Python prints for this code with 1, 2 and 3 threads: one text if it is the same."""
    done = [python("-c", code, OMP_NUM_THREADS=threads, **environment) for threads in "123"]
    assert [one.returncode for one in done] == [0] * 3, done[0].stderr
    return {one.stdout for one in done}


def opencl_error(status, routine):
    """What pyopencl raises where a function of OpenCL fails with this status."""
    import pyopencl

    out_of_memory = ("MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_RESOURCES", "OUT_OF_HOST_MEMORY")
    kind = pyopencl.MemoryError if status in out_of_memory else pyopencl.RuntimeError
    return kind(pyopencl._cl._ErrorRecord(routine, getattr(pyopencl.status_code, status), ""))
