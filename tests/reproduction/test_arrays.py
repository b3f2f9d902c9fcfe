import contextlib
import io
import zipfile

from original_stack.errors import UserError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction import arrays


def test_what_numpy_writes(tmp_path):
    path = tmp_path / "a.npz"
    kept = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.array("text"),
        "empty": np.zeros((0, 3), np.uint8),
    }
    path.write_bytes(arrays.npz(**kept))
    found = arrays.load_npz(path, "make it again")
    assert found.keys() == kept.keys()
    for name, array in kept.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    np.savez_compressed(path, **kept)
    np.testing.assert_array_equal(arrays.load_npz(path, "")["f"], kept["f"])


def test_a_header_that_claims_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (2 * 10**12,)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"few")
    size = len(header.getvalue()) + 3
    with pytest.raises(UserError) as raised:
        arrays.load_npz(path, "make it again")
    reason = f"an array of shape (2000000000000,) in {size} bytes"
    assert str(raised.value) == f"{path} is damaged ({reason}); make it again"


def test_objects_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(UserError) as raised:
        arrays.load_npz(path, "make it again")
    assert str(raised.value) == f"{path} is damaged (an array of Python objects); make it again"


def test_too_many_bytes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(10**6, np.uint8))
    with pytest.raises(UserError, match="more than 1000 bytes"):
        arrays.load_npz(path, "make it again", largest=1000)


@given(st.data())
def test_damage_is_a_user_error_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "a.npz"
    content = bytearray(arrays.npz(x=np.arange(5), y=np.float32(3)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        arrays.load_npz(path, "make it again")
