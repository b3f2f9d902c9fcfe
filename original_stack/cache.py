"""Where compiled code and downloaded data go, and whether Theano can compile there."""

import os
import shutil
import stat
import struct
import tempfile
from pathlib import Path

from original_stack.errors import UserError, expanded, writing

_REMEDY = "name another directory: BINARYCONNECT_CACHE=DIR"


def cache_directory():
    """The per-user directory of compiled code and data.

    It is the first of these that is set and can be written: BINARYCONNECT_CACHE;
    XDG_CACHE_HOME/binaryconnect; ~/.cache/binaryconnect; and, below the directory for temporary
    files, a directory that only this user can read.

    Raises
    ------
    UserError
        If BINARYCONNECT_CACHE is set but cannot be written, or if the directory for temporary files
        cannot be written or has such a directory of another user.
    """
    chosen = os.environ.get("BINARYCONNECT_CACHE")
    if chosen:
        path = expanded(chosen, "BINARYCONNECT_CACHE")
        with writing(path, _REMEDY):
            _make_writable(path)
        return path
    home = os.environ.get("XDG_CACHE_HOME", "")
    home = home if os.path.isabs(home) else os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        try:
            _make_writable(Path(home) / "binaryconnect")
            return Path(home) / "binaryconnect"
        except OSError:
            pass
    with writing("the directory for temporary files", _REMEDY):
        return _private(Path(tempfile.gettempdir()) / f"binaryconnect-{os.geteuid()}")


def _make_writable(path):
    """Make a directory if it is missing; raise an OSError if it cannot be written."""
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        # The OSError of a new file says whether the file system is read-only or a permission is
        # missing.
        tempfile.TemporaryFile(dir=path).close()


def compile_directory():
    """The directory of this user's compiled code, below `cache_directory()`.

    Raises
    ------
    UserError
        If it cannot be written, or if other users could write code there, which would be run.
    """
    path = cache_directory() / f"theano-{os.geteuid()}"
    with writing(path, _REMEDY):
        return _private(path)


def _private(path):
    """Make a directory if it is missing, and close it to other users.

    Raises
    ------
    UserError
        If it is not a directory, belongs to another user, or others could write there.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or mode & 0o022:
        raise UserError(
            f"{path} may hold code of others, which would be run (owner {status.st_uid}, mode "
            f"{mode:o}); expected a directory that only user {os.geteuid()} can write; remove it, "
            f"or {_REMEDY}"
        )
    if mode & 0o077:
        path.chmod(0o700)
    return path


def full_disk():
    """The UserError to raise when Theano cannot compile because a disk is full."""
    return UserError(
        f"cannot compile into {compile_directory()}: the disk is full, there or where temporary "
        "files go; free some space, or name other directories: BINARYCONNECT_CACHE=DIR TMPDIR=DIR"
    )


def check_cache():
    """Raise a UserError if Theano could not compile into the cache."""
    if os.statvfs(compile_directory()).f_flag & os.ST_NOEXEC:
        raise UserError(
            f"cannot compile into {compile_directory()}: its file system is mounted noexec; "
            f"{_REMEDY}"
        )
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    for directory in (cache_directory(), temporary):
        if directory.is_dir() and shutil.disk_usage(directory).free < 2**20:
            raise full_disk()


def remove_damaged(directory, lock):
    """Remove compiled modules that a power cut or a kill left incomplete, so that they are compiled
    again.

    Parameters
    ----------
    directory : path
        Theano's compiledir, which has a folder for each module.
    lock : callable
        Returns a context in which no other process compiles there.
    """

    def damaged():
        return [entry.path for entry in os.scandir(directory) if _is_damaged(entry)]

    if damaged():
        with lock():
            for folder in damaged():
                shutil.rmtree(folder, ignore_errors=True)


def _is_damaged(entry):
    """Whether the folder of a module has an incomplete library or lacks its library."""
    if not entry.is_dir():
        return False
    try:
        names = os.listdir(entry)
        libraries = [name for name in names if name.endswith(".so")]
        code = b""
        if "__init__.py" in names:
            with open(os.path.join(entry, "__init__.py"), "rb") as f:
                code = f.read()
        lacking = not libraries and (code or "key.pkl" in names)
        return bool(
            lacking
            or b"\0" in code
            or not all(_is_whole(os.path.join(entry, name)) for name in libraries)
        )
    except OSError:
        return False  # another process has removed it


def _is_whole(library):
    """Whether an ELF file is complete: its head says where the table of sections ends."""
    with open(library, "rb", buffering=0) as f:
        head, size = f.read(64), os.fstat(f.fileno()).st_size
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        return False
    (table,), (row, rows) = struct.unpack_from("Q", head, 40), struct.unpack_from("2H", head, 58)
    return size >= table + row * rows
