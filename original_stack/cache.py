"""Where compiled code and downloaded data go, and whether Theano can compile there."""

import os
import shutil
import tempfile
from pathlib import Path

from original_stack.errors import UserError


def cache_directory():
    """The per-user directory of compiled code and data: BINARYCONNECT_CACHE, else
    XDG_CACHE_HOME/binaryconnect, else ~/.cache/binaryconnect, else (where that cannot be written,
    as for a user without a home) one of the user's own in the directory for temporary files."""
    chosen = os.environ.get("BINARYCONNECT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(chosen) if chosen else Path(home) / "binaryconnect"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    path = Path(tempfile.gettempdir()) / f"binaryconnect-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def full_disk():
    """The UserError of a disk too full for Theano's compiler."""
    return UserError(
        f"cannot compile into {cache_directory() / 'theano'}: the disk is full, there or where "
        "temporary files go; free some space, or name other directories: BINARYCONNECT_CACHE=DIR "
        "TMPDIR=DIR"
    )


def check_cache():
    """Raises a UserError where Theano could not compile into the cache."""
    # Where the user's own THEANO_FLAGS name a directory, the cache is not compiled into.
    if os.environ["THEANO_FLAGS"].count("compiledir=") > 1:
        return
    if os.statvfs(cache_directory()).f_flag & os.ST_NOEXEC:
        raise UserError(
            f"cannot compile into {cache_directory() / 'theano'}: its file system is mounted "
            "noexec; name another directory: BINARYCONNECT_CACHE=DIR"
        )
    # Where Theano cannot write its own lock it would wait for that, many minutes.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    for directory in (cache_directory(), temporary):
        if directory.is_dir() and shutil.disk_usage(directory).free < 2**20:
            raise full_disk()
