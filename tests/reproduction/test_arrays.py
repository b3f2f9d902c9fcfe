import contextlib
import os
import struct
import warnings
import zipfile

from original_stack.errors import UserError

import numpy as np
import pytest
from checks import refusal
from formats import damaged
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
    loaded = arrays.load_npz(path, "make it again")
    assert loaded.keys() == kept.keys()
    for name, array in kept.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    np.savez_compressed(path, **kept)
    np.testing.assert_array_equal(arrays.load_npz(path, "")["f"], kept["f"])


def member(kind="'<f4'", shape="(2,)", data=bytes(8), version=b"\x01\x00"):
    """An .npy file with this header; `kind` and `shape` are written unchecked."""
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            member(shape="(2000000000000,)", data=b"few"),
            "an array of shape (2000000000000,) in 83 bytes",
        ),
        (member(shape="(3,)"), "8 bytes for an array of shape (3,)"),
        (member(data=bytes(9)), "9 bytes for an array of shape (2,)"),
        (member(shape="(-2,)"), "an array of shape (-2,)"),
        (member(shape="(True, 2)"), "an array of shape (True, 2)"),
        (member("'|O'"), "an array of type '|O'; expected numbers or text"),
        (member("'>f4'"), "an array of type '>f4'; expected numbers or text"),
        (member("'|S0'"), "an array of type '|S0'; expected numbers or text"),
        (member("[('a', '<f4')]"), "an array of type [('a', '<f4')]; expected numbers or text"),
        (member("'<f3'"), "data type '<f3' not understood"),
        (member("open('x')"), "malformed node or string on line 1: <ast.Call object at"),
        (member("(" * 999), "too many nested parentheses (<unknown>, line 1)"),
        (member("-" * 9000), ""),
        (member("'" + 20000 * " " + "'"), "a header of 20055 bytes"),
        (member(version=b"\x02\x00"), "the version of its header is not 1.0"),
        (b"\x93NUMPY", "EOF: reading magic string, expected 8 bytes got 6"),
        (b"", "EOF: reading magic string, expected 8 bytes got 0"),
    ],
)
def test_a_damaged_array(tmp_path, content, reason):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(UserError) as raised:
        arrays.load_npz(path, "make it again")
    message = str(raised.value)
    assert message.startswith(f"{path} is damaged ({reason}")
    assert message.endswith("; make it again")
    assert "\n" not in message


def archive(path, *names, **options):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as content:
        warnings.simplefilter("ignore")  # a name twice
        for name in names:
            content.writestr(name, member())


@pytest.mark.parametrize(
    ("names", "options", "reason"),
    [
        (["x.npy", "x.npy"], {}, "member x.npy"),
        (["x.txt"], {}, "member x.txt"),
        (["x.npy"], {"compression": zipfile.ZIP_LZMA}, "unknown compression 14"),
        (["x.npy"], {"compression": zipfile.ZIP_BZIP2}, "unknown compression 12"),
    ],
)
def test_a_damaged_archive(tmp_path, names, options, reason):
    archive(tmp_path / "a.npz", *names, **options)
    assert refusal(arrays.load_npz, tmp_path / "a.npz", "make it again") == (
        f"{tmp_path}/a.npz is damaged ({reason}); make it again"
    )


def test_an_encrypted_archive(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, "x.npy")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted, password required" in refusal(arrays.load_npz, path, "make it again")


def test_more_bytes_than_allowed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(10**6, np.uint8))
    assert refusal(arrays.load_npz, path, "make it again", largest=1000) == (
        f"{path} is damaged (more than 1000 bytes); make it again"
    )


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert refusal(arrays.load_npz, tmp_path / "a.npz", "make it again") == (
        f"{tmp_path}/a.npz is not a regular file; give the name of a file"
    )


@given(st.data())
def test_damage_is_a_user_error_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "a.npz"
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, x=np.arange(5), y=np.float32(3), z=np.array("text"))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with contextlib.suppress(UserError):
        arrays.load_npz(path, "make it again")
