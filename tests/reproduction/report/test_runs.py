import csv
import json
import os
from pathlib import Path

import original_stack

import checks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import UNOFFICIAL, add_run, first_layer, record

from reproduction.experiments import ROWS
from reproduction.report import runs as report

HUGE = 10**400


def read(results, **options):
    return report.read_runs(results, ROWS, **options)


def damage(results):
    """The reason why the only run of a folder is left out."""
    runs, (note,) = read(results)
    assert runs == []
    start, end = "`run` is left out: run.json is damaged (", "); restore it or run it again"
    assert note.startswith(start)
    assert note.endswith(end)
    return note[len(start) : -len(end)]


def test_a_run_is_read_completely(tmp_path):
    folder = add_run(tmp_path)
    evaluation = {"binary": 2.0, "real": 1.0, "ensemble": {"1": 3.0}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    ((run,), notes) = read(tmp_path)
    assert notes == []
    assert run.name == "mnist/paper-stochastic/seed-1"
    assert run.record == record()
    assert run.row == ("mnist", "paper", "stochastic")
    assert run.departures == ()
    with open(folder / "epochs.csv", newline="") as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    assert run.epochs == rows
    for name, array in first_layer().items():
        np.testing.assert_array_equal(run.first_layer[name], array)
    assert run.evaluation == evaluation


@pytest.mark.parametrize(
    ("changes", "departures"),
    [
        ({"epochs": 10, "epochs_done": 10}, ["10 epochs instead of 1,000"]),
        (UNOFFICIAL, ["unofficial data (train-images)"]),
        ({"test_weights": "binary"}, ["binary weights at test time"]),
        ({"hyperparameters": {"LR_start": 0.1}}, ["LR_start 0.1 instead of 0.3"]),
        ({"hyperparameters": {"dropout_in": 0.2}}, ["dropout_in 0.2 instead of 0"]),
        ({"hyperparameters": {"num_units": 2048}}, ["num_units 2,048 instead of 1,024"]),
        ({"hyperparameters": {"H": 1.0}}, ["H 1 instead of Glorot"]),
        ({"hyperparameters": {"hinge": "mean"}}, ["hinge mean instead of sum"]),
        ({"hyperparameters": {"LR_stages": 4}}, ["LR_stages 4 instead of None"]),
        ({"hyperparameters": {"shift_based": True}}, ["shift_based True instead of False"]),
        ({"hyperparameters": {"method": "none"}}, ["method none instead of stochastic"]),
        ({"hyperparameters": {"unknown": 1}}, ["unknown 1 instead of None"]),
        (
            {
                "dataset": "cifar10",
                "epochs": 80,
                "hyperparameters": {"width": 0.25, "train_size": 5000, "LR_fin": 0.01},
                **UNOFFICIAL,
            },
            [
                "unofficial data (train-images)",
                "width 0.25",
                "the first 5,000 training images",
                "80 epochs instead of 500",
                "LR_fin 0.01 instead of 2e-06",
            ],
        ),
        (
            {"dataset": "svhn", "epochs": 200, "hyperparameters": {"lcn": "all-channels"}},
            ["lcn all-channels instead of released"],
        ),
        (
            {"dataset": "digits", **UNOFFICIAL},
            ["unofficial data (train-images)", "no published row"],
        ),
        ({"protocol": "release", "method": "none", "epochs": 250}, ["no published row"]),
    ],
)
def test_departures_name_each_difference_from_the_row(changes, departures):
    run = record(**{"epochs_done": 0, **changes})
    row = ROWS[run["dataset"], run["protocol"], run["method"]]
    assert report.departures(run, row) == tuple(departures)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] != "digits"])
def test_a_run_of_a_published_row_is_comparable(row):
    dataset, protocol, method = row
    epochs = ROWS[row].epochs
    weights = ROWS[row].default_test_weights
    run = record(
        dataset=dataset, protocol=protocol, method=method, epochs=epochs, test_weights=weights
    )
    published = report.published(*row)
    assert report.departures(run, ROWS[row]) == (() if published else ("no published row",))
    assert published is None or int(published["epochs"]) == epochs


def test_hyperparameters_that_an_older_record_lacks():
    run = record()
    for name in ("LR_stages", "shift_based"):  # younger than the first records
        del run["hyperparameters"][name]
    row = ROWS["mnist", "paper", "stochastic"]
    assert report.departures(run, row) == ()
    del run["hyperparameters"]["LR_start"]
    assert report.departures(run, row) == ("LR_start not recorded",)
    run = record(protocol="bnn-torch7", method="bnn", epochs=200, test_weights="binary")
    del run["hyperparameters"]["shift_based"]
    row = ROWS["mnist", "bnn-torch7", "bnn"]
    assert report.departures(run, row) == ("shift_based False instead of True",)


def test_results_of_the_project_are_judged():
    """Everything under results/, including early records: full runs of the rows are comparable."""
    runs, notes = read(original_stack.ROOT / "results")
    assert notes == []
    assert all(bool(run.departures) == run.name.startswith("reduced/") for run in runs)
    assert len([run for run in runs if not run.departures]) >= 7
    reduced = {run.name: run.departures for run in runs}
    assert reduced["reduced/cifar10/paper-none/seed-1234"] == (
        "unofficial data (cifar-10-python.tar.gz)",
        "width 0.25",
        "the first 10,000 training images",
        "40 epochs instead of 500",
    )
    assert reduced["reduced/mnist/bnn-torch7-bnn/seed-1234"] == ("4 epochs instead of 200",)


def test_a_run_given_up_is_not_comparable_wherever_it_lies(tmp_path):
    given_up = "tuning/epochs=1000-dropout_in=0/mnist/paper-dropout/seed-1/run.json"
    (tmp_path / "copy").mkdir()
    copied = (original_stack.ROOT / "results" / given_up).read_text()
    (tmp_path / "copy" / "run.json").write_text(copied)
    ((run,), _) = read(tmp_path)
    assert run["epochs"] == 1000
    assert run.departures == ("dropout_in 0 instead of 0.2",)


def test_unusable_runs_are_left_out_with_a_note(tmp_path):
    add_run(tmp_path, seed=1)
    add_run(tmp_path, seed=1, name="copy")
    add_run(tmp_path, seed=2, finished=False, epochs_done=3)
    add_run(tmp_path, seed=3, finished=False, epochs_done=0, stopped="the loss is nan in epoch 1")
    (add_run(tmp_path, seed=4) / "run.json").write_text("[1]")
    (add_run(tmp_path, seed=5) / "run.json").unlink()
    (add_run(tmp_path, seed=6) / "epochs.csv").unlink()
    (add_run(tmp_path, seed=7) / "epochs.csv").write_text("epoch,train_loss,valid_error\n1,x,2\n")
    (add_run(tmp_path, seed=8) / "first_layer.npz").write_bytes(b"PK")
    (add_run(tmp_path, seed=9) / "evaluation.json").write_text("{}")
    add_run(tmp_path, seed=10, seconds=-3596.4)
    runs, notes = read(tmp_path)
    folder = "mnist/paper-stochastic"
    again = "restore it or run it again"
    assert notes == [
        f"`{folder}/seed-1` is left out: the same run as `copy`",
        f"`{folder}/seed-10` has no time: the clock was set back while it ran",
        f"`{folder}/seed-2` is left out: unfinished, 3 of 1,000 epochs",
        f"`{folder}/seed-3` is left out: unfinished, 0 of 1,000 epochs (the loss is nan in "
        "epoch 1)",
        f"`{folder}/seed-4` is left out: run.json is damaged (it is [1]); {again}",
        f"`{folder}/seed-5` is left out: it has no run.json",
        f"`{folder}/seed-6` has no epochs.csv: it is not in the figures made of it",
        f"`{folder}/seed-7` counts without epochs.csv: epochs.csv is damaged (could not convert "
        f"string to float: 'x'); {again}",
        f"`{folder}/seed-8` counts without first_layer.npz: first_layer.npz is damaged (File is "
        f"not a zip file); {again}",
        f"`{folder}/seed-9` counts without evaluation.json: evaluation.json is damaged (it has no "
        f"binary); {again}",
    ]
    assert [run["seed"] for run in runs] == [1, 10, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finished": None}, "finished is null"),
        ({"test_error": None}, "test_error is null"),
        ({"seed": HUGE}, f"seed is 1{'0' * 59}"),
        ({"epochs_done": 1001}, "more than 1000 epochs"),
        ({"epochs": 900, "epochs_done": 900, "best_epoch": 1}, "900 and 1000 epochs"),
        *(({key: "../x"}, "the name '../x'") for key in ("dataset", "protocol", "method")),
        ({"dataset": "$\\frac{$"}, r"the name '$\\frac{$'"),
        ({"method": "x" * 65}, f"the name '{'x' * 65}'"),
        ({"protocol": ""}, "the name ''"),
        ({"hyperparameters": {"a b": 1.0}}, "the name 'a b'"),
    ],
)
def test_damaged_values_of_a_record(tmp_path, changes, reason):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record(), **changes}))
    assert damage(tmp_path) == reason


def test_files_that_nobody_can_read_do_not_stop_the_others(tmp_path):
    add_run(tmp_path, seed=1)
    names = ("run.json", "epochs.csv", "first_layer.npz", "evaluation.json")
    for seed, name in enumerate(names):
        path = add_run(tmp_path, f"no {name}", seed=10 + seed) / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    (add_run(tmp_path, "large", seed=3) / "epochs.csv").write_bytes(b"x" * 200_000)
    runs, notes = read(tmp_path)
    assert [run.name for run in runs] == [
        "large",
        "mnist/paper-stochastic/seed-1",
        "no epochs.csv",
        "no evaluation.json",
        "no first_layer.npz",
    ]
    assert notes[0].startswith("`large` counts without epochs.csv: epochs.csv is damaged (")
    fifo = "is not a regular file; give the name of a file"
    assert notes[1:] == [
        *(
            f"`no {name}` counts without {name}: {name} {fifo}"
            for name in ("epochs.csv", "evaluation.json", "first_layer.npz")
        ),
        f"`no run.json` is left out: run.json {fifo}",
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    add_run(tmp_path, seed=1)
    hidden = [add_run(tmp_path, seed=2)]
    scandir = os.scandir

    def deny(path):
        if Path(path) in hidden:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    runs, notes = read(tmp_path)
    assert [run["seed"] for run in runs] == [1]
    name = "`mnist/paper-stochastic/seed-2`"
    assert notes == [f"{name} is left out: cannot read it: Permission denied; make it readable"]
    hidden.append(tmp_path)
    assert checks.refusal(read, tmp_path) == (
        f"cannot read {tmp_path}: Permission denied; make it readable"
    )


def test_folders_of_any_name(tmp_path):
    for name in (b"caf\xe9", b"a|b`c", b"$\\frac{$"):
        folder = add_run(tmp_path, os.fsdecode(name))
        (folder / "run.json").write_text("{")
    _, notes = read(tmp_path)
    assert sorted(note.partition(" is left out")[0] for note in notes) == [
        "`$\\frac{$`",
        "`a\\|b'c`",
        "`caf?`",
    ]
    "\n".join(notes).encode()


@pytest.mark.parametrize(
    "line",
    [
        "0,1,2",
        "1,nan,2",
        "1,inf,2",
        "1,1e300,2",
        "1,-1,2",
        "1,1,101",
        "1,1,",
        "1,1",
        "1,1,2,3",
        "1,1," + "2" * 200_000,
        "1,1,\0",
    ],
)
def test_damaged_epochs(tmp_path, line):
    folder = add_run(tmp_path, "run")
    (folder / "epochs.csv").write_text(f"epoch,train_loss,valid_error\n{line}\n")
    ((run,), (note,)) = read(tmp_path)
    assert run.epochs == []
    assert note.startswith("`run` counts without epochs.csv: epochs.csv is damaged (")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": np.array([784.0, 70.0])},
        {"shape": np.array([784])},
        {"shape": np.array([784, -70])},
        {"shape": np.array([[784, 70]])},
        {"shape": np.array([784, 10])},
        {"shape": np.array(784)},
        {"counts": np.zeros(101)},
        {"counts": np.zeros(101, int)},
        {"counts": np.array([], int)},
        {"counts": np.full((101, 1), 1)},
        {"edges": np.zeros(102, np.float32)},
        {"edges": np.full(102, np.nan, np.float32)},
        {"edges": np.arange(50, dtype=np.float32)},
        {"weights": np.full((784, 64), np.nan, np.float16)},
        {"weights": np.zeros((784, 0), np.float16)},
        {"weights": np.zeros((783, 64), np.float16)},
        {"weights": np.zeros(784, np.float16)},
        {"weights": np.array("x")},
        {"weights": np.zeros((784, 64), complex)},
    ],
)
def test_damaged_first_layer(tmp_path, changes):
    folder = add_run(tmp_path, "run")
    np.savez(folder / "first_layer.npz", **{**first_layer(), **changes})
    ((run,), (note,)) = read(tmp_path)
    assert run.first_layer is None
    assert note.startswith("`run` counts without first_layer.npz: first_layer.npz is damaged (")


@pytest.mark.parametrize(
    "changes",
    [
        {"real": 101},
        {"binary": "x"},
        {"binary": HUGE},
        {"ensemble": []},
        *({"ensemble": {size: 1.0}} for size in ("x", "0", "9" * 5000)),
    ],
)
def test_damaged_evaluation(tmp_path, changes):
    evaluation = {"binary": 2.0, "real": 1.0, "ensemble": {"1": 3.0}, **changes}
    (add_run(tmp_path, "run") / "evaluation.json").write_text(json.dumps(evaluation))
    ((run,), (note,)) = read(tmp_path)
    assert run.evaluation is None
    assert note.startswith("`run` counts without evaluation.json: evaluation.json is damaged (")


@pytest.mark.parametrize("name", ["run.json", "epochs.csv", "first_layer.npz", "evaluation.json"])
def test_no_damage_of_a_file_stops_the_others(tmp_path, name):
    folder = add_run(tmp_path, "run")
    evaluation = {"binary": 2.0, "real": 1.0, "ensemble": {"1": 3.0}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    content = (folder / name).read_bytes()

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.integers(0, min(len(content), 4000)), st.binary(max_size=8), st.integers(0, 5000))
    def damage(start, inserted, removed):
        (folder / name).write_bytes(content[:start] + inserted + content[start + removed :])
        runs, notes = read(tmp_path)
        assert len(runs) == 1 or notes[0].startswith("`run` is left out: ")
        "\n".join(notes).encode()

    damage()


def test_runs_of_tuning_are_separate(tmp_path):
    add_run(tmp_path, "tuning/LR_start=9/mnist/paper-stochastic/seed-1", epochs=10, epochs_done=10)
    add_run(tmp_path)
    assert [run.name for run in read(tmp_path)[0]] == ["mnist/paper-stochastic/seed-1"]
    ((run,), notes) = read(tmp_path, tuning=True)
    assert (run.name.split("/")[1], notes) == ("LR_start=9", [])
