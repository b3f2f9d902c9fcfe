"""Errors that a user can fix, and files: read without trust, written atomically, locked.

Files that come from outside (data, records, trained networks) are opened by `open_regular` and
parsed within `reading`. Only `reading` decides which exceptions mean that a file is damaged.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
import tarfile
import uuid
import zipfile
import zlib
from pathlib import Path

# What may be raised when a damaged file is parsed.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # a zip archive that is encrypted or has an unknown compression; deep nesting
    SyntaxError,  # the header of a NumPy array
    TypeError,
    ValueError,  # also of JSON and of text that is not UTF-8
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class UserError(Exception):
    """An error that the user can fix.

    One line says what is wrong, what was expected and what to do. Commands print it and exit with
    status 2.
    """


def say(line):
    """Print "<program>: <line>" to stderr, or nothing if that cannot be written."""
    with contextlib.suppress(OSError):
        print(f"{Path(sys.argv[0]).stem}: {line}", file=sys.stderr, flush=True)


def expanded(path, source):
    """`path` with the home that ~ or ~user stands for.

    Parameters
    ----------
    path : str
    source : str
        The option or variable that the path comes from, for the error.

    Raises
    ------
    UserError
        If there is no such home.
    """
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise UserError(f"{source} is {path!r}, but there is no such home; give a full path")
    return Path(full)


def open_regular(path):
    """Open a file from outside for reading. A FIFO is refused, not waited for.

    Returns
    -------
    binary file object

    Raises
    ------
    FileNotFoundError
        If there is no such file; callers know what that means.
    UserError
        If it is not a regular file (but a FIFO, a device or a folder), or if it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, error.strerror, str(path)) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _irregular(path) from None
        raise unreadable(path, error) from None
    except ValueError:  # the name has a NUL
        raise UserError(f"{str(path)!r} is not the name of a file; give another") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return open(descriptor, "rb")


def _irregular(path):
    return UserError(f"{path} is not a regular file; give the name of a file")


def unreadable(path, error):
    """The UserError for an OSError that was raised while `path` was read."""
    return UserError(f"cannot read {path}: {error.strerror or error}; make it readable")


def no_room(error):
    """Whether an error says that a disk, or the user's share of it, is full."""
    text = str(error)  # errors of h5py and of the C++ compiler have no number
    return (
        getattr(error, "errno", None) in _NO_ROOM
        or "No space left on device" in text
        or "Disk quota exceeded" in text
    )


@contextlib.contextmanager
def reading(path, remedy, damage=DAMAGE):
    """Turn the exceptions of a damaged file within the block into a UserError.

    Parameters
    ----------
    path : path
    remedy : str
        What to do about a damaged file.
    damage : tuple of exceptions

    Raises
    ------
    UserError
        "<path> is damaged (<why>); <remedy>", or "cannot read <path>: <why>; make it readable".
    FileNotFoundError
        As `open_regular` does.
    OSError
        If something within the block writes and the disk is full.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if no_room(error):
            raise
        # For damage, h5py and gzip raise OSErrors without a number, and a seek to an impossible
        # place raises EINVAL.
        if error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):
            raise unreadable(path, error) from None
        raise UserError(f"{path} is damaged ({_reason(error)}); {remedy}") from None
    except damage as error:
        raise UserError(f"{path} is damaged ({_reason(error)}); {remedy}") from None


def _reason(error):
    """The first line of the text of an error, shortened and printable, or the name of its class."""
    text = str(error).strip().partition("\n")[0]
    text = "".join(c if c.isprintable() else "?" for c in text[:120])
    return text or type(error).__name__


def write_atomically(path, content):
    """Write bytes to a file atomically: on error, the old file is kept.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path, remedy):
    """Turn an OSError within the block into "cannot write <path>: <why>; <remedy>".

    If a permission or the folder is missing, the error says instead how to get it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = _permission(Path(path).absolute())
        elif error.errno == errno.ENOENT:
            remedy = "make its folder first or name another"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {remedy}") from None


def _permission(path):
    """What to do about a path that this user may not write."""
    existing = next(p for p in (path, *path.parents) if os.access(p, os.F_OK))
    if existing.is_file() and not os.access(existing.parent, os.W_OK):
        existing = existing.parent  # a file is replaced, which needs a folder that can be written
    status = existing.stat()
    owner, user = f"{status.st_uid}:{status.st_gid}", f"{os.geteuid()}:{os.getegid()}"
    if status.st_uid == os.geteuid():
        return f"make {existing} writable or choose another"
    return (
        f"{existing} belongs to user {owner}, this is {user}; run as its owner (in a container: "
        f"--user {owner}) or choose another"
    )


class Lock:
    """A lock on a file or folder. The kernel releases it when its holder ends, even by a kill.

    If the file system has no locks (NFS without a lock daemon, some FUSE), the holder continues
    without a lock and says so once.

    Parameters
    ----------
    path : path
        An existing folder, or a file, which is made if it is missing.
    shared : bool
        Whether other processes may hold the lock too if they share it.
    waiting : str or None
        If another process holds the lock, `say` this and wait. None: raise BlockingIOError instead.

    Raises
    ------
    BlockingIOError
        If another process holds the lock and `waiting` is None.
    OSError
        If the path cannot be opened.
    """

    _said = False

    def __init__(self, path, shared=False, waiting=None):
        folder = os.path.isdir(path)
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW * (not folder), 0o666)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            try:
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise
                say(waiting)
                fcntl.flock(self._descriptor, kind)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                if not Lock._said:
                    Lock._said = True
                    say(f"{path}: this file system has no locks; do not start the same run twice")
                return
            self.release()
            raise

    def release(self):
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()
