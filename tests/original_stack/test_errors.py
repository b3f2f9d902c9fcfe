import errno
import os

from original_stack.errors import UserError, writing

import pytest


def test_a_missing_permission_names_the_owner(tmp_path, monkeypatch):
    owner = f"{os.geteuid()}:{os.getegid()}"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "getegid", lambda: 54321)
    with pytest.raises(UserError) as caught, writing(tmp_path / "a" / "b", "make room"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a/b: Permission denied; {tmp_path} belongs to user {owner}, this "
        f"is 12345:54321; run as its owner (in a container: --user {owner}) or choose another"
    )


def test_an_owner_without_permission(tmp_path):
    with pytest.raises(UserError) as caught, writing(tmp_path / "a", "make room"):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a: Operation not permitted; make {tmp_path} writable or choose "
        "another"
    )
