"""The records of a run in JSON: run.json, evaluation.json and the progress in a checkpoint.

The types below define them, and `check` compares a value with a type. This module does not load
Theano.
"""

import dataclasses
import json
import sys
import types
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from original_stack.errors import open_regular, reading

LARGEST = 2**26  # bytes of a JSON file; a run of 1,000 epochs has less than 2**20

Count = Annotated[int, 0, 2**53]
Number = Annotated[int, 1, 2**32 - 1]
Positive = Annotated[float, sys.float_info.min, sys.float_info.max]
Share = Annotated[float, 0, 0.99]
Width = Annotated[int, 1, 2**13]  # units or filters of a layer; more would not fit into memory
Percent = Annotated[float, 0, 100]
Seconds = Annotated[float, 0, sys.float_info.max]


class File(TypedDict):
    """A file of a data set."""

    name: str
    md5: str
    official: bool


class Job(TypedDict):
    """A job of Slurm."""

    id: str
    node: str
    restarts: Count


class Environment(TypedDict, total=False):
    """The environment of a run."""

    versions: dict[str, str]
    lock_sha256: str
    image: str | None
    system: str  # distribution and kernel
    compiler: str | None
    cpu: str
    instructions: list[str]  # of vectors: by them OpenBLAS and the fused ops choose their kernels
    kernels: list[str]  # the fused ops of a training step
    threads: Count
    job: Job | None
    git_commit: str | None
    git_dirty: bool | None


class EarlierEnvironment(Environment):
    """An earlier environment of a run, and the last epoch that was trained in it."""

    until_epoch: Count


class Best(TypedDict):
    """The epoch with the lowest validation error; None before the first evaluation."""

    best_epoch: Count | None
    valid_error: Percent | None
    test_error: Percent | None


class Row(TypedDict):
    """An evaluation, which is a row of epochs.csv."""

    epoch: Count
    learning_rate: float
    train_loss: float
    valid_loss: float
    valid_error: Percent
    seconds: Seconds


class Run(Best, Environment):
    """run.json. Early records lack some of the keys that are not required."""

    dataset: str
    protocol: str
    method: str
    seed: Annotated[int, 0, 2**32 - 1]
    epochs: Count
    test_weights: str
    published_error: NotRequired[Percent | None]
    hyperparameters: dict[str, float | str | bool | None]
    fused: NotRequired[bool]
    data: list[File]
    official_data: bool
    preprocessing: NotRequired[str]
    train_images: NotRequired[Count]
    test_images: Annotated[int, 1, 2**53]
    epochs_done: Count
    finished: bool
    started: NotRequired[str]
    ended: NotRequired[str]
    command: NotRequired[str]  # of the last process
    peak_memory: NotRequired[Count]  # in bytes, of the last process
    seconds: float  # below 0 if the clock was set back while an early version ran
    earlier: NotRequired[list[EarlierEnvironment]]
    stopped: NotRequired[str]


class FinishedRun(Run):
    """run.json of a finished run."""

    model_sha256: NotRequired[str]  # of model.npz

    best_epoch: Count
    valid_error: Percent
    test_error: Percent


class Evaluation(TypedDict):
    """evaluation.json: test errors by kind of weights. None means that the network does not have
    that kind."""

    binary: Percent | None
    binary_own_statistics: NotRequired[Percent | None]
    real: Percent | None
    ensemble: dict[Literal["1", "2", "4", "8", "16"], Percent]
    unique_kernels: NotRequired[list[Percent]]  # of each layer with binary convolutions


def read_run(path, remedy):
    """The content of run.json.

    Parameters
    ----------
    path : path
    remedy : str
        What to do if the file is damaged.

    Returns
    -------
    dict
        See `Run`, or `FinishedRun` if its `finished` is true.

    Raises
    ------
    FileNotFoundError
    UserError
        If the file cannot be read or is not a record of a run.
    """
    with open_regular(path) as f, reading(path, remedy):
        run = _parse(f)
        check(run, Run)
        if run["finished"]:
            check(run, FinishedRun)
        if max(run["epochs_done"], run["best_epoch"] or 0) > run["epochs"]:
            raise ValueError(f"more than {run['epochs']} epochs")
        return run


def read_evaluation(path, remedy):
    """The content of evaluation.json, see `Evaluation`. Parameters and errors as in `read_run`."""
    with open_regular(path) as f, reading(path, remedy):
        evaluation = _parse(f)
        check(evaluation, Evaluation)
        return evaluation


def same_data(record, other):
    """Whether two runs have the same data. Official files hold the same images in any packing."""
    official = record.get("official_data") is True and other.get("official_data") is True
    return official or record.get("data") == other.get("data")


def _parse(f):
    content = f.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    return json.loads(content)


def check(value, kind, name="it"):
    """Raise a ValueError unless a value that was parsed from JSON is of a kind.

    Parameters
    ----------
    value : object
    kind : type
        int, float, str, bool, None, list, dict, Literal of str, a union, a TypedDict or a
        dataclass (as the dict of its fields). ``Annotated[kind, minimum, maximum]`` bounds a
        number. Numbers are finite, text is printable.
    name : str
        The name of the value in the error.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    right = True
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        check(value, dict[str, Any], name)
        required = getattr(kind, "__required_keys__", value)
        for key, part in get_type_hints(kind, include_extras=True).items():
            if key in value:
                check(value[key], part, key)
            elif key in required:
                raise ValueError(f"{name} has no {key}")
    elif origin is NotRequired:
        check(value, arguments[0], name)
    elif origin is Annotated:
        check(value, arguments[0], name)
        right = arguments[1] <= value <= arguments[2]
    elif origin is Literal:
        right = type(value) is str and value in arguments
    elif origin in (Union, types.UnionType):
        right = any(_fits(value, part) for part in arguments)
    elif origin is list:
        right = type(value) is list and all(_fits(part, arguments[0]) for part in value)
    elif origin is dict:
        right = type(value) is dict and all(
            _fits(key, arguments[0]) and _fits(part, arguments[1]) for key, part in value.items()
        )
    elif kind is float:
        right = type(value) in (int, float) and abs(value) <= sys.float_info.max
    elif kind is str:
        right = type(value) is str and value.isprintable()
    elif kind is not Any:
        right = type(value) is kind
    if not right:
        raise ValueError(f"{name} is {json.dumps(value)[:60]}")


def _fits(value, kind):
    try:
        check(value, kind)
    except ValueError:
        return False
    return True
