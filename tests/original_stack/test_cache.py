import os
import subprocess
import sys
import tempfile
from pathlib import Path

from original_stack import ROOT, cache
from original_stack.cache import cache_directory, compile_directory
from original_stack.errors import UserError

import numpy.fft
import pytest
from checks import python, refusal

USER = os.geteuid()


@pytest.fixture
def without_home(tmp_path, monkeypatch):
    """The directory for temporary files, when no cache is chosen and the home cannot be written."""
    monkeypatch.delenv("BINARYCONNECT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BINARYCONNECT_CACHE", "~/in home")
    assert cache_directory() == tmp_path / "in home"
    monkeypatch.delenv("BINARYCONNECT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "binaryconnect"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says: ignore it
    assert cache_directory() == tmp_path / ".cache" / "binaryconnect"


def test_without_a_home(without_home):
    own = cache_directory()
    assert own == without_home / f"binaryconnect-{USER}"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o755)  # other users could read, but not write
    assert cache_directory() == own
    assert own.stat().st_mode & 0o777 == 0o700


UNKNOWN = """
import pwd
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
import original_stack.cache, theano
print(original_stack.cache.cache_directory())
"""


def test_a_user_that_the_system_does_not_know(tmp_path):
    """Theano can be imported, and no folder called ~ appears in the current one."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "current").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    for name in ("HOME", "BINARYCONNECT_CACHE", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", UNKNOWN],
        env=environment,
        cwd=tmp_path / "current",
        capture_output=True,
        text=True,
    )
    own = tmp_path / "temporary" / f"binaryconnect-{USER}"
    assert (done.returncode, done.stdout) == (0, f"{own}\n")
    assert list((tmp_path / "temporary").iterdir()) == [own]
    assert not list((tmp_path / "current").iterdir())


def test_a_home_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", "~nosuchuser/x")
    assert refusal(cache_directory) == (
        "BINARYCONNECT_CACHE is '~nosuchuser/x', but there is no such home; give a full path"
    )


def test_a_chosen_directory_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", "/proc/none")
    assert refusal(cache_directory).startswith("cannot write /proc/none: ")


def foreign(path, monkeypatch):
    """Make `path` look like a directory of another user."""
    path.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: USER + 1)


def owned_by_another(path, monkeypatch):
    name = path.with_name(path.name.replace(str(USER), str(USER + 1)))
    foreign(name, monkeypatch)
    return name, USER, "700"


def writable_by_others(path, monkeypatch):
    path.mkdir()
    path.chmod(0o777)
    return path, USER, "777"


def a_link(path, monkeypatch):
    target = path.with_name("target")
    target.mkdir(mode=0o700)
    path.symlink_to(target)
    return path, USER, "777"


@pytest.mark.parametrize("kind", [owned_by_another, writable_by_others, a_link])
@pytest.mark.parametrize("place", ["temporary", "compiled"])
def test_a_directory_that_may_hold_code_of_others(without_home, monkeypatch, kind, place):
    if place == "temporary":
        directory, name = cache_directory, f"binaryconnect-{USER}"
    else:
        monkeypatch.setenv("BINARYCONNECT_CACHE", str(without_home))
        directory, name = compile_directory, f"theano-{USER}"
    path, owner, mode = kind(without_home / name, monkeypatch)
    assert refusal(directory) == (
        f"{path} may hold code of others, which would be run (owner {owner}, mode {mode}); "
        f"expected a directory that only user {os.geteuid()} can write; remove it, or name another "
        "directory: BINARYCONNECT_CACHE=DIR"
    )


def test_two_users_of_one_volume(tmp_path, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path))
    first = compile_directory()
    monkeypatch.setattr(os, "geteuid", lambda: USER + 1)
    with pytest.raises(UserError):  # the directory of this test belongs to the first user
        compile_directory()
    assert sorted(tmp_path.iterdir()) == [first, tmp_path / f"theano-{USER + 1}"]


FULL = """
import shutil, sys, original_stack
usage = shutil.disk_usage
full = shutil._ntuple_diskusage(100, 100, 0)
shutil.disk_usage = lambda path: full if str(path) == sys.argv[1] else usage(path)
import theano
"""


@pytest.mark.parametrize("full", ["cache", "temporary"])
def test_a_full_disk_is_reported_before_theano_fails(tmp_path, full):
    folders = {name: str(tmp_path / name) for name in ("cache", "temporary")}
    (tmp_path / "temporary").mkdir()
    (tmp_path / "program.py").write_text(FULL)
    done = python(
        tmp_path / "program.py",
        folders[full],
        BINARYCONNECT_CACHE=folders["cache"],
        TMPDIR=folders["temporary"],
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"program: cannot compile into {tmp_path}/cache/theano-{USER}: the disk is full, there "
        "or where temporary files go; free some space, or name other directories: "
        "BINARYCONNECT_CACHE=DIR TMPDIR=DIR\n",
    )


NOEXEC = """
import os, types, original_stack
os.statvfs = lambda path: types.SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID)
import theano
"""


def test_a_cache_that_is_mounted_noexec(tmp_path):
    (tmp_path / "program.py").write_text(NOEXEC)
    done = python(tmp_path / "program.py", BINARYCONNECT_CACHE=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"program: cannot compile into {tmp_path}/theano-{USER}: its file system is mounted "
        "noexec; name another directory: BINARYCONNECT_CACHE=DIR\n",
    )


def test_a_directory_of_the_user_s_own_flags_is_not_checked(tmp_path):
    (tmp_path / "program.py").write_text(NOEXEC)
    flags = f"base_compiledir={tmp_path}/own"
    done = python(tmp_path / "program.py", BINARYCONNECT_CACHE="/proc/none", THEANO_FLAGS=flags)
    assert (done.returncode, done.stderr) == (0, "program: compiling, about a minute, once\n")


@pytest.fixture
def compiled(tmp_path):
    """A compile directory with two modules: shared libraries, and the files that Theano adds."""
    library = Path(numpy.fft._pocketfft_internal.__file__)
    for name in ("tmpa", "tmpb"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "m.so").write_bytes(library.read_bytes())
        (folder / "__init__.py").touch()
        (folder / "key.pkl").write_bytes(b"key")
    (tmp_path / "lock").touch()
    return tmp_path


class Held:
    """A lock that counts how often it was taken."""

    taken = 0

    def __enter__(self):
        Held.taken += 1

    def __exit__(self, *_):
        pass


def kept(directory):
    Held.taken = 0
    cache.remove_damaged(directory, Held)
    return sorted(path.name for path in directory.iterdir())


def test_whole_modules_are_kept_and_need_no_lock(compiled):
    assert kept(compiled) == ["lock", "tmpa", "tmpb"]
    assert Held.taken == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda library: library.write_bytes(b""),
        lambda library: library.write_bytes(library.read_bytes()[:-1]),
        lambda library: library.write_bytes(library.read_bytes()[:5000]),
        lambda library: library.write_bytes(bytes(library.stat().st_size)),
        lambda library: library.unlink(),
        lambda library: library.with_name("__init__.py").write_bytes(bytes(20)),
    ],
)
def test_damaged_modules_are_removed(compiled, damage):
    damage(compiled / "tmpa" / "m.so")
    assert kept(compiled) == ["lock", "tmpb"]
    assert Held.taken == 1
