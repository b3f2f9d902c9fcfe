"""results/networks.md: a card for each trained network that lies beside its run."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

from original_stack.errors import UserError, open_regular, reading

from reproduction.arrays import load_npz
from reproduction.report.markdown import MADE, NAMES, commit_of, table, text
from reproduction.report.runs import Run
from reproduction.training.records import Percent, check

REMEDY = "make it again from its run with ./reproduce export"
LARGEST = 2**30  # bytes of all arrays in a file
HEAD = """\
# Trained networks

{made} {runs} finished runs, {number} of which have a deployed.npz: one file of packed bits, made
by `./reproduce export`. Its format is described in `reproduction/deploy/network.py` and
`bnn_network.py`.

    ./reproduce predict FILE IMAGES...

prints a class for each image: raw pixels in .npy, .npz and IDX files, PNG or PGM pictures, or
folders of these. `./reproduce export RUN_DIR --c DIR` writes a network of a run as C99."""


class Layer(TypedDict):
    """A layer in a manifest. Only its size is needed here."""

    shape: list[Annotated[int, 1, 2**31]]


class Manifest(TypedDict):
    """What a file says about its network."""

    dataset: str
    protocol: str
    method: str
    test_error: Percent
    layers: list[Layer]


@dataclass
class Deployed:
    """A deployed.npz beside a finished run.

    Attributes
    ----------
    run : Run
    test_error : float
        Test error with the weights of the file, in percent.
    bytes : int
        Size of the file.
    weights, stored : int
        The number of weights, and the bytes that they take in the file.
    sha256 : str
    """

    run: Run
    test_error: float
    bytes: int
    weights: int
    stored: int
    sha256: str

    @property
    def name(self):
        """The path of the file, relative to the folder of the results."""
        return f"{self.run.name}/deployed.npz"


def read_networks(results, runs):
    """The deployed networks of runs.

    Parameters
    ----------
    results : path
    runs : list of Run

    Returns
    -------
    networks : list of Deployed
    notes : list of str
        A sentence on each file that cannot be used.
    """
    networks, notes = [], []
    for run in runs:
        path = Path(results) / run.name / "deployed.npz"
        try:
            with open_regular(path) as f, reading(path, REMEDY):
                content = f.read(LARGEST + 1)
            arrays = load_npz(path, REMEDY, LARGEST)
            with reading(path, REMEDY):
                manifest = json.loads(str(arrays["manifest"]))
                check(manifest, Manifest)
                row = tuple(manifest[key] for key in ("dataset", "protocol", "method"))
                if row != run.row:
                    raise ValueError(f"a network of row {', '.join(row)}")
                stored = [arrays[f"weights{i}"].nbytes for i in range(len(manifest["layers"]))]
        except FileNotFoundError:
            continue
        except UserError as error:
            notes.append(text(str(error).replace(f"{results}/", "")))
            continue
        weights = sum(math.prod(layer["shape"]) for layer in manifest["layers"])
        networks.append(
            Deployed(
                run,
                manifest["test_error"],
                len(content),
                weights,
                sum(stored),
                hashlib.sha256(content).hexdigest(),
            )
        )
    return networks, notes


def networks_page(runs, networks):
    """The text of results/networks.md.

    Parameters
    ----------
    runs : list of Run
    networks : list of Deployed
    """
    head = HEAD.format(made=MADE, runs=len(runs), number=len(networks))
    cards = [head, *map(_card, networks)]
    return "\n\n".join(cards) + "\n"


def _card(network):
    run = network.run
    dataset, protocol, method = run.row
    lines = [
        [
            "data",
            f"{NAMES.get(dataset, text(dataset))}"
            + ("" if run["official_data"] else ", not the official files"),
        ],
        ["row", text(f"protocol {protocol}, method {method}, seed {run['seed']}")],
        ["setting of the run", text("; ".join(run.departures)) or "as published"],
        ["test error of this file", f"{network.test_error:.2f} %"],
        *([f"test error with {kind}", f"{error:.2f} %"] for kind, error in errors(run).items()),
        [
            "weights",
            f"{network.weights:,}, {8 * network.stored / network.weights:.3g} bit each",
        ],
        [
            "size of the file",
            f"{network.bytes:,} bytes; the weights as 32-bit floats would have "
            f"{4 * network.weights:,}",
        ],
        ["SHA-256", f"`{network.sha256}`"],
        ["trained by", text(f"commit {commit_of(run.record)}")],
        ["run it", f"`./reproduce predict results/{text(network.name)} IMAGES...`"],
    ]
    return f"## {text(run.name)}\n\n{table(['', ''], lines)}"


def errors(run):
    """{kind of weights: test error} of a run: all that were evaluated, or the error in run.json."""
    if not run.evaluation:
        return {f"{run['test_weights']} weights": run["test_error"]}
    by_kind = {
        "binary weights": run.evaluation["binary"],
        "binary weights, recomputed statistics": run.evaluation.get("binary_own_statistics"),
        "real weights": run.evaluation["real"],
    }
    if ensemble := run.evaluation["ensemble"]:
        largest = max(ensemble, key=int)
        by_kind[f"an ensemble of {largest}"] = ensemble[largest]
    return {kind: error for kind, error in by_kind.items() if error is not None}
