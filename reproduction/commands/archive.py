"""An archive from which all this runs years from now, without a network: the program, the packages
of its lock, the image and the data files that are there, with checksums and directions."""

import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import original_stack
from original_stack import lock
from original_stack.command_line import Parser, run
from original_stack.errors import UserError

from reproduction.datasets import files as data_files
from reproduction.training import run_folder as record

README = """\
BinaryConnect, reproduced in the stack it was written in: all that it takes to run commit
{commit} without a network.

    sha256sum --check --quiet SHA256SUMS
    tar -xf binaryconnect.tar.gz

With Docker{no_image}:

    gunzip --stdout image.tar.gz | docker load
    docker run --rm --volume "$PWD/data:/data" --volume "$PWD/results:/results" {image} mnist

Without, on Linux for x86-64 with Python 3.11, its headers and venv module, and g++ (Debian 12):

    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/packages" BINARYCONNECT_DATA="$PWD/data"
    binaryconnect/reproduce mnist

The data files that were there: {data}.
"""
AGAIN = "then start again with an empty folder"


def archive(folder, image="binaryconnect"):
    """Write the archive.

    Parameters
    ----------
    folder : path
        Made if need be; one with files in it is refused.
    image : str
        Name of the image to save, where Docker has it.

    Raises
    ------
    UserError
        If the folder has files or cannot be written, if the program is not as committed or the
        image of another commit, or if a package cannot be downloaded.
    """
    folder = Path(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} has files in it; name a new folder")
        commit = _program(folder / "binaryconnect.tar.gz")
        saved = _image(folder / "image.tar.gz", image, commit)
        _packages(folder / "packages")
        data = _data(folder / "data")
        text = README.format(
            commit=commit,
            image=image,
            no_image="" if saved else " (there was no image when this was made)",
            data=", ".join(data) or "none",
        )
        (folder / "README").write_text(text)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files]
        (folder / "SHA256SUMS").write_text("".join(lines))
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; make room or name another folder; {AGAIN}"
        ) from None


def _program(path):
    """Saves what git has, and returns the commit."""
    root, found = original_stack.ROOT, record.surroundings()
    if found["git_dirty"] is None:
        raise UserError(f"{root} is no git checkout, which an archive is made of; make it in one")
    if found["git_dirty"]:
        raise UserError(f"{root} has changes, an archive is of a commit; commit or discard them")
    commit = found["git_commit"]
    _call(
        ["git", "-C", root, "archive", "--output", path, "--prefix", "binaryconnect/"]
        + ["--add-virtual-file", f"binaryconnect/commit:{commit}", commit]
    )
    return commit


def _image(path, image, commit):
    """Saves the image if there is one, and returns whether."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode
    ):
        print(f"archive: without an image: Docker has no {image} here", file=sys.stderr)
        return False
    own = _call(
        ["docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", image]
        + ["/binaryconnect/commit"]
    ).strip()
    if own != commit:
        raise UserError(
            f"image {image} is of commit {own or 'unknown'}, not {commit}; build it anew"
        )
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving,
        gzip.open(path, "wb", compresslevel=1) as f,
    ):
        shutil.copyfileobj(saving.stdout, f, 2**20)
    if saving.returncode:
        raise UserError(f"docker save failed (see above); mend that, {AGAIN}")
    return True


def _packages(folder):
    """Downloads the packages of the lock: wheels of this Python and processor, else sources."""
    _call(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--require-hashes", "--no-deps", "--no-build-isolation", "--dest", folder]
        + ["--requirement", lock.LOCK]
    )


def _data(folder):
    """Copies the data files that `data_files` would find, and returns their names."""
    copied = []
    for directory in data_files.data_directories():
        for path in sorted(directory.rglob("*")):
            if path.name in data_files.CHECKSUMS and path.name not in copied:
                target = folder / path.relative_to(directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                copied.append(path.name)
    return copied


def _sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _call(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(
            f"{' '.join(map(str, command[:4]))} ... failed (see above); mend that, {AGAIN}"
        )
    return done.stdout


def main(argv=None):
    parser = Parser(prog="archive", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a new folder")
    parser.add_argument("--image", metavar="NAME", default="binaryconnect")
    return run(parser, lambda options: archive(options.folder, options.image), argv)


if __name__ == "__main__":
    sys.exit(main())
