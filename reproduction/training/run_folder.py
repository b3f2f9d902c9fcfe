"""The record of a run: its folder, run.json, epochs.csv, checkpoint, trained model and what the
figures need of it.

As a program: prints what a run would run on, with the version of every package.

Files appear whole or not at all, so that a crash, a kill or a full disk never leaves a broken one.
"""

import csv
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import uuid
import zipfile
from contextlib import contextmanager
from pathlib import Path

import original_stack
from original_stack import command_line, lock, machine
from original_stack.errors import UserError

import numpy as np

FILES = (
    "checkpoint.npz",
    "run.json",
    "epochs.csv",
    "model.npz",
    "first_layer.npz",
    "evaluation.json",
    "deployed.npz",
)
UNITS_KEPT = 64  # of the first layer, for the figures
COLUMNS = ["epoch", "learning_rate", "train_loss", "valid_loss", "valid_error", "seconds"]


class RunFolder:
    """A folder of one run, results/<dataset>/<protocol>-<method>/seed-<seed>, held by one process.

    Parameters
    ----------
    path : path
    configuration : dict
        What makes this run this run; part of its run.json, and compared with the one found there.
    resume, restart : bool
        Demand a run to continue; discard the run that is there.

    Raises
    ------
    UserError
        If another process holds the folder, if it cannot be written, or if it holds a run of
        another configuration or a damaged record and `restart` is false.
    """

    def __init__(self, path, configuration, resume=False, restart=False):
        self.path = Path(path)
        self.configuration = configuration
        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._discard([path.name for path in self.path.glob(".*.part")])  # killed in `put`
            if restart:
                self._discard(FILES)
            self.run = self._found()
            if resume and not self.run:
                raise UserError(f"--resume: no run to continue in {self.path}; leave --resume out")
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(
                f"{self.path} is in use by another process; wait for it or choose another --results"
            ) from None
        except UserError:
            os.close(self._lock)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._lock)

    def write(self, run, rows):
        """Write run.json (`configuration` and `run`) and epochs.csv (`rows`: dicts of COLUMNS)."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.run = {**self.configuration, **run}
        text = json.dumps(self.run, indent=2, allow_nan=False) + "\n"
        self._put("epochs.csv", table.getvalue().encode())
        self._put("run.json", text.encode())

    def save_checkpoint(self, progress, arrays):
        """Keep `progress` (JSON) and `arrays` ({name: array}) to continue from."""
        description = json.dumps([self.configuration, progress])
        self._put("checkpoint.npz", npz(progress=description, **arrays))

    def load_checkpoint(self, progress, arrays):
        """(progress, arrays) as they were kept, or None where nothing is.

        Parameters
        ----------
        progress : dict
        arrays : dict of str to ndarray
            Those of a run that begins: what was kept must have their names, shapes and types.

        Raises
        ------
        UserError
            If the checkpoint is damaged, of another configuration or of another version.
        """
        path = self.path / "checkpoint.npz"
        if not path.exists():
            return None
        try:
            with open(path, "rb") as f, np.load(f, allow_pickle=False) as archive:
                configuration, then = json.loads(str(archive["progress"]))
                kept = {name: archive[name] for name in archive.files if name != "progress"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is damaged ({error}); start the run anew with --restart"
            ) from None
        self._compare(configuration)
        if then.keys() != progress.keys() or _kinds(kept) != _kinds(arrays):
            raise UserError(
                f"{path} is of another version of this program; start the run anew with --restart"
            )
        return then, kept

    def finish(self, run, rows, model):
        """Write the model ({name: array}, the first layer's weights the first), what the figures
        need of it (see `first_layer`) and the final record; the checkpoint has served."""
        self._put("model.npz", npz(**model))
        self._put("first_layer.npz", npz(**first_layer(next(iter(model.values())))))
        self.write(run, rows)
        (self.path / "checkpoint.npz").unlink(missing_ok=True)

    def _put(self, name, content):
        with _disk_errors(self.path):
            put(self.path / name, content)

    def _found(self):
        path = self.path / "run.json"
        if not path.exists():
            if any(self.path.glob("[!.]*")):
                raise UserError(
                    f"{self.path} holds files but no run.json; choose another --results or discard "
                    "them with --restart"
                )
            return None
        try:
            run = json.loads(path.read_text())
            finished, _ = run["finished"], run["epochs_done"]
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged; start the run anew with --restart") from None
        self._compare(run)
        if not finished and run["epochs_done"] and not (self.path / "checkpoint.npz").exists():
            raise UserError(
                f"{self.path} holds a run without the checkpoint to continue it (only its record "
                "was kept); start it anew with --restart or choose another --results"
            )
        return run

    def _compare(self, run):
        for key, ours in self.configuration.items():
            theirs = run.get(key)
            if isinstance(ours, dict) and isinstance(theirs, dict):
                key, ours, theirs = next(
                    ((k, v, theirs.get(k)) for k, v in ours.items() if theirs.get(k) != v),
                    (key, ours, theirs) if ours != theirs else (key, None, None),
                )
            if ours != theirs:
                raise UserError(
                    f"{self.path} holds a run with {key} {_short(theirs)}, this one has "
                    f"{_short(ours)}; use the same options, another --results, or discard it with "
                    "--restart"
                )

    def _discard(self, names):
        with _disk_errors(self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)


def put(path, content):
    """Write bytes to the file `path`, which has them all or, after an OSError, is as it was."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def npz(**arrays):
    """The bytes of an .npz of `arrays`."""
    content = io.BytesIO()  # not straight to the file: on a full disk zipfile leaves a mess
    np.savez(content, **arrays)
    return content.getbuffer()


def first_layer(W):
    """What the figures need of a model: small enough for git, which model.npz is not.

    Parameters
    ----------
    W : float array of shape (inputs, units) or (filters, channels, rows, columns)
        The latent weights of the first layer.

    Returns
    -------
    dict
        `shape` of W; `counts`, a histogram of all of W over 101 equal bins from -max|W| to max|W|,
        and their `edges`; `weights`, those of the first 64 units or filters, float16.
    """
    largest = np.abs(W).max() or 1.0
    counts, edges = np.histogram(W, bins=101, range=(-largest, largest))
    kept = W[:, :UNITS_KEPT] if W.ndim == 2 else W[:UNITS_KEPT]
    return {
        "shape": np.array(W.shape),
        "counts": counts,
        "edges": edges.astype(np.float32),
        "weights": kept.astype(np.float16),
    }


def published(dataset, protocol, method):
    """Row of results/published.csv (a dict) for a run, or None."""
    with open(original_stack.ROOT / "results" / "published.csv", newline="") as f:
        for row in csv.DictReader(f):
            if (row["dataset"], row["protocol"], row["method"]) == (dataset, protocol, method):
                return row
    return None


def surroundings():
    """What a run ran on: versions, image (its base, if in one), processor, threads, commit."""
    version = lock.locked_versions()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version[name] for name in ("theano", "lasagne", "fuel", "numpy")},
            "blas": machine.blas(),
        },
        "lock_sha256": hashlib.sha256(lock.LOCK.read_bytes()).hexdigest(),
        "image": os.environ.get("BINARYCONNECT_IMAGE"),
        "cpu": machine.processor().get("model name", platform.machine()),
        "threads": machine.threads(),
        **_commit(),
    }


def provenance():
    """The surroundings, and {package: version} of what is installed: Python's packages, and in the
    image Debian's."""
    debian = {}
    if os.environ.get("BINARYCONNECT_IMAGE"):
        shown = subprocess.run(["dpkg-query", "--show"], capture_output=True, text=True, check=True)
        debian = dict(line.split("\t") for line in shown.stdout.splitlines())
    packages = {found.name: found.version for found in importlib.metadata.distributions()}
    return {**surroundings(), "packages": dict(sorted(packages.items())), "debian": debian}


def _commit():
    def git(*args):
        return subprocess.run(
            ["git", "-C", original_stack.ROOT, *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if os.path.samefile(git("rev-parse", "--show-toplevel"), original_stack.ROOT):
            dirty = git("status", "--porcelain", "--", ".", ":!results")
            return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(dirty)}
    except (OSError, subprocess.CalledProcessError):
        pass
    # The image and the archive have their commit in a file instead.
    commit = original_stack.ROOT / "commit"
    found = commit.read_text().strip() if commit.exists() else None
    return {"git_commit": found or None, "git_dirty": None}


def _kinds(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def _disk_errors(path):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room or choose another --results, then "
            "the same command goes on from the last checkpoint"
        ) from None


def main(argv=None):
    parser = command_line.Parser(prog="provenance", description="What runs here, as JSON.")
    return command_line.run(parser, lambda _: print(json.dumps(provenance(), indent=2)), argv)


if __name__ == "__main__":
    sys.exit(main())
