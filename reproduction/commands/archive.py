"""Write an archive that runs years from now without a network: the program, the packages of its
lock, and the image and the data files if present, with checksums and directions."""

import datetime
import gzip
import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import UserError, open_regular, writing
from original_stack.lock import LOCK

from reproduction.commands import metadata
from reproduction.datasets import files as data_files
from reproduction.deploy import predict
from reproduction.training import environment

README = """\
BinaryConnect, reproduced in the stack it was written in: all that it takes to run commit
{commit} without a network. Made on {date} for {machine}.

{contents}

Image: {image_facts}
Data files: {data}
{licenses}
Check it (all checksums, and with Python 3.11 the error of a network), unpack the program and make
the folders of data and results:

    ./verify
    tar -xf binaryconnect.tar.gz
    mkdir -p data results

Each of the three ways below defines `run`, in this folder and in a POSIX shell. Then

    run mnist --data digits --epochs 10

trains on embedded images of digits within two minutes and ends with a test error below 12 %. The
published experiments (run mnist, run cifar10, run svhn) need the files of their data set in data/.
With MNIST's test images and labels there ({test_set}), a network of the program's results

    run predict {deployed} "$data/{images}" >classes
    ./verify classes

errs in {errors} of 10,000 test images. ro-crate-metadata.json lists all files for machines.

1. With Docker, or podman under its name:

    gunzip --stdout image.tar.gz | docker load
    data=/data
    run() {{
        docker run --rm --network none --volume "$PWD/data:/data" \\
            --volume "$PWD/results:/results" {image} "$@"
    }}

2. On Debian 12, or another {machine} with Python 3.11, its headers and venv module, and
g++; the first command makes the environment:

    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/packages"
    export BINARYCONNECT_DATA="$PWD/data" BINARYCONNECT_RESULTS="$PWD/results"
    data=$PWD/data
    run() {{ (cd binaryconnect && ./reproduce "$@"); }}

3. On any {machine}, as root, without Docker: in the unpacked image

    mkdir image root
    tar -xf image.tar.gz -C image
    for layer in {layers}; do
        tar -xf "image/$layer" -C root
    done
    data=/data
    run() {{
        unshare --mount sh -euc '
            mount --rbind /dev root/dev
            mount --rbind /proc root/proc
            mount --bind data root/data
            mount --bind results root/results
            exec chroot root env -i -C /binaryconnect {variables} ./entrypoint "$@"' run "$@"
    }}
"""
VERIFY = """\
#!/bin/sh
# Checks this archive: every checksum and, where MNIST's test set is in it, the error of a network.
# `./verify CLASSES` checks the error of a file of predicted classes, one a line.
set -eu
classes=${{1:+$(realpath -- "$1")}}
cd "$(dirname -- "$0")"
images=data/{images} labels=data/{labels}

fail() {{
    echo "verify: $2" >&2
    exit "$1"
}}

check_error() {{
    errors=$(gunzip --stdout --force <"$labels" | tail -c +9 | od -An -v -t u1 -w1 |
        tr -d ' ' | paste - "$1" | awk '$1 != $2' | wc -l)
    [ "$errors" -eq {errors} ] ||
        fail 1 "the network errs in $errors test images; {errors} are stated"
    echo "the network errs in $errors test images, as stated"
}}

if [ -n "$classes" ]; then
    check_error "$classes"
    exit
fi
sha256sum --check --quiet --strict SHA256SUMS ||
    fail 1 "the files above are not as archived; get the archive again"
echo "$(wc -l <SHA256SUMS) files are as archived"
if [ ! -e "$images" ] || [ ! -e "$labels" ]; then
    echo "MNIST's test set is not here: the error of the network is not checked"
    exit
fi
for python in "${{PYTHON:-python3.11}}" python3 ""; do
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break
done
[ -n "$python" ] ||
    fail 2 "no Python 3.11 found, which runs the network; name it: PYTHON=/path/to/python3.11"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf binaryconnect.tar.gz -C "$work"
for wheel in packages/*.whl; do
    [ ! -e "$wheel" ] || "$python" -m zipfile -e "$wheel" "$work/packages"
done
PYTHONPATH=$work/packages:$work/binaryconnect "$python" -P -m reproduction.deploy.predict \\
    "$work/binaryconnect/{deployed}" "$images" >"$work/classes"
check_error "$work/classes"
"""
AGAIN = "then start again with an empty folder"
DEPLOYED = "results/mnist/paper-stochastic/seed-1/deployed.npz"
TEST_SET = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def archive(folder, image="binaryconnect"):
    """Write the archive.

    Parameters
    ----------
    folder : path
        Made if it is missing; refused if it has files.
    image : str
        The name of the image, which is saved if Docker has it.

    Raises
    ------
    UserError
        If the folder has files or cannot be written, if the program is not as committed or the
        image is of another commit, if a data file is not the official one, or if a package cannot
        be downloaded.
    """
    folder = Path(folder).absolute()
    with writing(folder, f"make room or name another folder; {AGAIN}"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} has files in it; name a new folder")
        commit = _program(folder / "binaryconnect.tar.gz")
        data = _data(folder / "data")
        facts = _image(folder, image, commit)
        _packages(folder / "packages")
        _write_directions(folder, commit, image, facts, data)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{metadata.sha256(path)}  {path.relative_to(folder)}\n" for path in files]
        (folder / "SHA256SUMS").write_text("".join(lines))


def _write_directions(folder, commit, image, facts, data):
    """Write README, verify and ro-crate-metadata.json for the other files in the folder."""
    today = datetime.datetime.now(datetime.UTC).date()
    sizes = [(path.name, _size(path)) for path in sorted(folder.iterdir())]
    images, labels = (data.get(f"{name}.gz") or data.get(name) for name in TEST_SET)
    present = {data_files.dataset_of(name) for name in data}
    licenses = [
        textwrap.fill(f"{name}: {text}", 96, initial_indent="    ", subsequent_indent="      ")
        for name, text in data_files.LICENSES.items()
        if name in present
    ]
    network = {
        "deployed": DEPLOYED,
        "images": images or f"{TEST_SET[0]}.gz",
        "labels": labels or f"{TEST_SET[1]}.gz",
        "errors": round(100 * predict.load(original_stack.ROOT / DEPLOYED).manifest["test_error"]),
    }
    readme = README.format(
        commit=commit,
        date=today,
        machine=f"{platform.system()} {platform.machine()}",
        contents="\n".join(f"    {size / 1e6:8.1f} MB  {name}" for name, size in sizes),
        image=image,
        image_facts=facts["description"] if facts else "none was there (without it: way 2)",
        layers=" ".join(facts["layers"]) if facts else "",
        variables=shlex.join(facts["environment"]) if facts else "",
        data=", ".join(data) or "none were there",
        licenses="\n".join(
            ["\nThey remain under the licenses of their data sets:\n", *licenses, ""]
        )
        if licenses
        else "",
        test_set="they are there" if images and labels else "they are not there now",
        **network,
    )
    (folder / "README").write_text(readme)
    (folder / "verify").write_text(VERIFY.format(**network))
    (folder / "verify").chmod(0o755)
    manifest = json.dumps(metadata.crate(folder, commit, today), indent=1)
    (folder / "ro-crate-metadata.json").write_text(manifest + "\n")


def _program(path):
    """Save the files of the commit, and return its name."""
    root, facts = original_stack.ROOT, environment.commit()
    if facts["git_dirty"] is None:
        raise UserError(f"{root} is not a git checkout, and an archive is of a commit; use one")
    if facts["git_dirty"]:
        raise UserError(f"{root} has changes, an archive is of a commit; commit or discard them")
    commit = facts["git_commit"]
    _call(
        ["git", "-C", root, "archive", "--output", path, "--prefix", "binaryconnect/"]
        + ["--add-virtual-file", f"binaryconnect/commit:{commit}", commit]
    )
    return commit


def _image(folder, image, commit):
    """Save the image and its bill of materials, and return the facts that the directions need, or
    None if Docker does not have the image."""
    inspect = ["docker", "image", "inspect", "--format", "{{json .}}", image]
    if shutil.which("docker") is None or subprocess.run(inspect, capture_output=True).returncode:
        print(f"archive: without an image: Docker has no {image} here", file=sys.stderr)
        return None
    facts = json.loads(_call(inspect))
    start = ["docker", "run", "--rm", "--network", "none"]
    own = _call([*start, "--entrypoint", "cat", image, "/binaryconnect/commit"]).strip()
    if own != commit:
        raise UserError(
            f"image {image} is of commit {own or 'unknown'}, not {commit}; build it again"
        )
    (folder / "sbom.json").write_text(_call([*start, image, "provenance", "--sbom"]))
    path = folder / "image.tar.gz"
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving,
        gzip.open(path, "wb", compresslevel=1) as f,
    ):
        shutil.copyfileobj(saving.stdout, f, 2**20)
    if saving.returncode:
        raise UserError(f"docker save failed (see above); fix that, {AGAIN}")
    with tarfile.open(path) as saved:
        manifest = json.load(saved.extractfile("manifest.json"))
    return {
        "description": f"{facts['Id']}, {facts['Os']}/{facts['Architecture']}, "
        f"{facts['Size'] / 1e6:.0f} MB unpacked; sbom.json lists its packages",
        "environment": facts["Config"]["Env"],
        "layers": manifest[0]["Layers"],
    }


def _packages(folder):
    """Download the packages of the lock, as wheels for this Python and processor or as sources."""
    _call(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--require-hashes", "--no-deps", "--no-build-isolation", "--dest", folder]
        + ["--requirement", LOCK]
    )


def _data(folder):
    """Copy the official data files that a run would find.

    Returns
    -------
    dict
        {name: path below `folder`}.
    """
    copied = {}
    directories = data_files.data_directories()
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.name in data_files.CHECKSUMS and path.name not in copied:
                below = path.relative_to(directory)
                _copy(path, folder / below)
                copied[path.name] = below
    if not copied:
        print(
            f"archive: without data: no official file is in {' or '.join(map(str, directories))}; "
            "the archive will train on the embedded digits only",
            file=sys.stderr,
        )
    return copied


def _copy(path, target):
    md5, expected = hashlib.md5(), data_files.CHECKSUMS[path.name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(path) as source, open(target, "xb") as f:
        while block := source.read(2**20):
            md5.update(block)
            f.write(block)
    if md5.hexdigest() != expected:
        raise UserError(
            f"{path} is not the official file: its md5 is {md5.hexdigest()}, expected {expected}; "
            f"replace or remove it, {AGAIN}"
        )


def _size(path):
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def _call(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(
            f"{shlex.join(map(str, command[:4]))} ... failed (see above); fix that, {AGAIN}"
        )
    return done.stdout


def main(argv=None):
    parser = Parser(prog="archive", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a new folder")
    parser.add_argument("--image", metavar="NAME", default="binaryconnect")
    return run(parser, lambda options: archive(options.folder, options.image), argv)


if __name__ == "__main__":
    sys.exit(main())
