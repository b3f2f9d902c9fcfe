import contextlib
import errno
import os
import socket

from original_stack.errors import UserError, no_room, open_regular, reading, writing

import pytest


def test_a_missing_permission_names_the_owner(tmp_path, monkeypatch):
    owner, other = f"{os.geteuid()}:{os.getegid()}", os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    monkeypatch.setattr(os, "getegid", lambda: 54321)
    with pytest.raises(UserError) as caught, writing(tmp_path / "a" / "b", "make room"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a/b: Permission denied; {tmp_path} belongs to user {owner}, this "
        f"is {other}:54321; run as its owner (in a container: --user {owner}) or choose another"
    )


def test_an_owner_without_permission(tmp_path):
    with pytest.raises(UserError) as caught, writing(tmp_path / "a", "make room"):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a: Operation not permitted; make {tmp_path} writable or choose "
        "another"
    )


def test_a_file_in_a_folder_without_permission(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK or path != tmp_path)
    with pytest.raises(UserError) as caught, writing(tmp_path / "a", "make room"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a: Permission denied; make {tmp_path} writable or choose another"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
        OSError("as: mod.s: Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_not_damage(error):
    assert no_room(error)
    with pytest.raises(OSError, match="No space|quota") as caught, reading("a", "make it again"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EINVAL, "Invalid argument"), "[Errno 22] Invalid argument"),
        (OSError("Not a gzipped file (b'ab')"), "Not a gzipped file (b'ab')"),
        (RuntimeError("File 'x' is encrypted"), "File 'x' is encrypted"),
        (MemoryError(), "MemoryError"),
        (ValueError("one\ntwo"), "one"),
    ],
)
def test_what_a_damaged_file_raises(error, reason):
    assert not no_room(error)
    with pytest.raises(UserError) as caught, reading("a", "make it again"):
        raise error
    assert str(caught.value) == f"a is damaged ({reason}); make it again"


def test_a_file_without_permission_is_not_called_damaged():
    with pytest.raises(UserError) as caught, reading("a", "make it again"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert str(caught.value) == "cannot read a: Permission denied; make it readable"


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    with listening, contextlib.chdir(tmp_path):
        listening.bind("socket")
        for path in ("fifo", "socket", ".", "/dev/zero"):
            with pytest.raises(UserError) as caught:
                open_regular(path)
            assert str(caught.value) == f"{path} is not a regular file; give the name of a file"
