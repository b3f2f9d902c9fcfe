import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys

import original_stack
from original_stack import lock
from original_stack.errors import Lock, UserError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.arrays import npz
from reproduction.training.progress import Progress, Snapshot
from reproduction.training.run_folder import RunFolder, first_layer

CONFIGURATION = {
    "dataset": "toy",
    "protocol": "paper",
    "method": "none",
    "seed": 7,
    "epochs": 10,
    "test_weights": "real",
    "published_error": 1.18,
    "hyperparameters": {"LR_start": 0.3, "H": 1.0},
    "data": [{"name": "a.gz", "md5": "0" * 32, "official": True}],
    "official_data": True,
    "preprocessing": "none",
    "test_images": 53,
}
ROWS = [
    {"epoch": 2, "learning_rate": 0.3, "train_loss": 1.5, "valid_loss": 1.25, "valid_error": 2.5}
]
BEST = {"best_epoch": 2, "valid_error": 2.5, "test_error": 3.0}
RUN = {"epochs_done": 2, "finished": False, **BEST, "seconds": 1.5}
FINISHED = {**RUN, "epochs_done": 10, "finished": True}
ARRAYS = {"W": np.arange(6, dtype=np.float32).reshape(2, 3)}
PROGRESS = Progress("2026-11-20T10:00:00+00:00", {"threads": 2}, 2, 1.5, best=BEST)


def snapshot(W=ARRAYS["W"], name="W"):
    return Snapshot({"state": np.zeros(2)}, {name: W})


def folder(path, configuration=CONFIGURATION, **options):
    return RunFolder(path, configuration, **options)


def test_write_and_continue(tmp_path):
    with folder(tmp_path / "a" / "b") as first:
        assert first.run is None
        first.save_checkpoint(PROGRESS, snapshot())
        first.write(RUN, ROWS)
    path = tmp_path / "a" / "b"
    assert json.loads((path / "run.json").read_text()) == {**CONFIGURATION, **RUN}
    assert (path / "epochs.csv").read_text() == (
        "epoch,learning_rate,train_loss,valid_loss,valid_error,seconds\n2,0.3,1.5,1.25,2.5,\n"
    )
    with folder(path, resume=True) as second:
        assert second.run == {**CONFIGURATION, **RUN}
        here = snapshot(np.zeros((2, 3), np.float32))
        assert second.load_checkpoint(here) == PROGRESS
    np.testing.assert_array_equal(here.best["W"], ARRAYS["W"])


def test_finish_leaves_model_and_record(tmp_path):
    with folder(tmp_path) as run:
        run.save_checkpoint(PROGRESS, snapshot())
        run.finish(FINISHED, ROWS, ARRAYS)
    files = ["epochs.csv", "first_layer.npz", "model.npz", "run.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".checkpoint.npz.1.part").touch()
    folder(tmp_path).__exit__()
    assert not list(tmp_path.iterdir())


def test_first_layer_keeps_a_histogram_of_all_weights_and_64_units():
    W = np.linspace(-0.5, 0.5, 70 * 80).reshape(70, 80)
    kept = first_layer(W)
    assert kept["shape"].tolist() == [70, 80]
    assert (kept["edges"][0], kept["edges"][-1], len(kept["counts"])) == (-0.5, 0.5, 101)
    assert kept["counts"].sum() == 5600
    assert kept["counts"].max() - kept["counts"].min() <= 1
    np.testing.assert_array_equal(kept["weights"], W[:, :64].astype(np.float16))
    filters = np.zeros((80, 3, 3, 3), np.float32)
    assert first_layer(filters)["weights"].shape == (64, 3, 3, 3)


def refused(path, message, **options):
    with pytest.raises(UserError) as caught:
        folder(path, **options)
    assert str(caught.value) == message


def test_run_of_another_configuration_is_refused(tmp_path):
    with folder(tmp_path) as run:
        run.save_checkpoint(PROGRESS, snapshot())
        run.write(RUN, ROWS)
    advice = "use the same options, another --results, or discard it with --restart"
    refused(
        tmp_path,
        f"{tmp_path} holds a run with epochs 10, this one has 12; {advice}",
        configuration={**CONFIGURATION, "epochs": 12},
    )
    refused(
        tmp_path,
        f"{tmp_path} holds a run with LR_start 0.3, this one has 0.2; {advice}",
        configuration={**CONFIGURATION, "hyperparameters": {"LR_start": 0.2, "H": 1.0}},
    )
    with folder(tmp_path, {**CONFIGURATION, "epochs": 12}, restart=True) as run:
        assert run.run is None
    assert not list(tmp_path.iterdir())


def test_an_early_record_lacks_keys(tmp_path):
    with folder(tmp_path) as run:
        run.finish(FINISHED, ROWS, ARRAYS)
    hyperparameters = {**CONFIGURATION["hyperparameters"], "shift_based": False}
    later = {**CONFIGURATION, "hyperparameters": hyperparameters, "fused": True}
    with folder(tmp_path, later) as run:
        assert run.run["finished"]


def test_nothing_to_resume(tmp_path):
    path = tmp_path / "run"
    refused(path, f"--resume: no run to continue in {path}; leave --resume out", resume=True)
    assert not path.exists()


def test_damaged_record(tmp_path):
    (tmp_path / "run.json").write_text('{"dataset": "to')
    refused(
        tmp_path,
        f"{tmp_path}/run.json is damaged (Unterminated string starting at: line 1 column 13 (char "
        "12)); start the run again with --restart",
    )


def test_record_without_checkpoint(tmp_path):
    with folder(tmp_path) as run:
        run.write(RUN, ROWS)
    refused(
        tmp_path,
        f"{tmp_path} holds a run without the checkpoint to continue it (only its record was kept); "
        "start the run again with --restart or choose another --results",
    )


def test_strange_files(tmp_path):
    (tmp_path / "thesis.tex").touch()
    refused(
        tmp_path,
        f"{tmp_path} holds files but no run.json; choose another --results or discard them with "
        "--restart",
    )


def test_a_record_that_cannot_be_read(tmp_path):
    (tmp_path / "run.json").mkdir()
    refused(tmp_path, f"{tmp_path}/run.json is not a regular file; give the name of a file")


@pytest.mark.parametrize("position", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_checkpoint(tmp_path, damage, position):
    with folder(tmp_path) as run:
        run.save_checkpoint(PROGRESS, snapshot(np.zeros((50, 50), np.float32)))
        path = tmp_path / "checkpoint.npz"
        content = bytearray(path.read_bytes())
        at = int(position * len(content))
        if damage == "cut":
            content = content[:at]
        else:
            content[at] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            run.load_checkpoint(snapshot(np.zeros((50, 50), np.float32)))
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith("); start the run again with --restart")


def keep(run, progress, arrays, configuration=CONFIGURATION):
    """Write a checkpoint by hand."""
    content = npz(progress=json.dumps([configuration, progress]), **arrays.arrays())
    (run.path / "checkpoint.npz").write_bytes(content)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epoch": 11}, "epoch 11 of 10"),
        ({"epoch": "2"}, 'epoch is "2"'),
        ({"epoch": -1}, "epoch is -1"),
        ({"rows": [{"epoch": 2}]}, 'rows is [{"epoch": 2}]'),
        ({"rows": {}}, "rows is {}"),
        ({"best": {"best_epoch": 2}}, "best has no valid_error"),
        ({"seconds": -1.0}, "seconds is -1.0"),
        ({"environment": None}, "environment is null"),
        ({"earlier": [None]}, "earlier is [null]"),
    ],
)
def test_checkpoint_with_wrong_progress(tmp_path, changes, reason):
    with folder(tmp_path) as run:
        keep(run, {**dataclasses.asdict(PROGRESS), **changes}, snapshot())
        with pytest.raises(UserError) as caught:
            run.load_checkpoint(snapshot())
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint.npz is damaged ({reason}); start the run again with --restart"
    )


@pytest.mark.parametrize("text", ["[" * 100000, "[]", "[1, 2]", "[{}, null]", "nothing"])
def test_checkpoint_without_progress(tmp_path, text):
    with folder(tmp_path) as run:
        content = npz(progress=text, **snapshot().arrays())
        (tmp_path / "checkpoint.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"/checkpoint.npz is damaged \(.*\); start the run "):
            run.load_checkpoint(snapshot())


@pytest.mark.parametrize(
    ("progress", "arrays"),
    [
        ({}, {"W": np.zeros((2, 3))}),
        ({}, {"W": np.zeros((3, 2), np.float32)}),
        ({}, {"W": ARRAYS["W"], "name": "V"}),
        ({"epochs": 2}, {}),
        ({"epoch": None}, {}),
    ],
    ids=["type", "shape", "name", "more progress", "less progress"],
)
def test_checkpoint_of_another_version(tmp_path, progress, arrays):
    changed = {**dataclasses.asdict(PROGRESS), **progress}
    with folder(tmp_path) as run:
        keep(run, {k: v for k, v in changed.items() if v is not None}, snapshot(**arrays))
        with pytest.raises(UserError) as caught:
            run.load_checkpoint(snapshot())
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint.npz is of another version of this program; start the run again "
        "with --restart"
    )


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from reproduction.training.run_folder import RunFolder; "
        "held = RunFolder(sys.argv[1], {}); print('held', flush=True); "
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        cwd=original_stack.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == b"held\n"
    refused(
        tmp_path,
        f"{tmp_path} is in use by another process; wait for it or choose another --results",
    )
    other.kill()
    other.communicate()
    folder(tmp_path).__exit__()


def test_official_files_in_another_packing_are_the_same_run(tmp_path):
    with folder(tmp_path) as run:
        run.finish(FINISHED, ROWS, ARRAYS)
    unpacked = [{"name": "a", "md5": "1" * 32, "official": True}]
    folder(tmp_path, {**CONFIGURATION, "data": unpacked}).__exit__()
    changed = {**CONFIGURATION, "data": unpacked, "official_data": False}
    with pytest.raises(
        UserError, match=r'holds a run with data \[{"name": "a.gz", .*\.\.\., this one'
    ):
        folder(tmp_path, changed)


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(Lock, "_said", False)
    with folder(tmp_path) as run:
        run.finish(FINISHED, ROWS, ARRAYS)
    assert capsys.readouterr().err.endswith(
        f": {tmp_path}: this file system has no locks; do not start the same run twice\n"
    )


def test_fifos(tmp_path):
    os.mkfifo(tmp_path / "run")
    with pytest.raises(UserError, match=r"^cannot write .*/run: File exists; "):
        folder(tmp_path / "run")
    with folder(tmp_path / "other") as run:
        os.mkfifo(run.path / "checkpoint.npz")
        with pytest.raises(UserError, match="/checkpoint.npz is not a regular file; "):
            run.load_checkpoint(snapshot())


def test_a_file_without_permission_is_not_called_damaged(tmp_path, monkeypatch):
    with folder(tmp_path) as run:
        run.save_checkpoint(PROGRESS, snapshot())
        run.write(RUN, ROWS)

    def without_permission(name):
        def open_file(path, *args, original=os.open):
            if os.path.basename(path) == name:
                raise PermissionError(errno.EACCES, "Permission denied")
            return original(path, *args)

        monkeypatch.setattr(os, "open", open_file)

    message = f"cannot read {tmp_path}/{{}}: Permission denied; make it readable"
    without_permission("run.json")
    refused(tmp_path, message.format("run.json"))
    monkeypatch.undo()
    with folder(tmp_path) as run:
        without_permission("checkpoint.npz")
        with pytest.raises(UserError) as caught:
            run.load_checkpoint(snapshot())
    assert str(caught.value) == message.format("checkpoint.npz")


def test_a_folder_of_another_user(tmp_path, monkeypatch):
    owner, other = f"{os.geteuid()}:{os.getegid()}", os.geteuid() + 1

    def mkdir(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        patch.setattr(os, "geteuid", lambda: other)
        patch.setattr(os, "getegid", lambda: 54321)
        with pytest.raises(UserError) as caught:
            folder(tmp_path / "run")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/run: Permission denied; {tmp_path} belongs to user {owner}, this "
        f"is {other}:54321; run as its owner (in a container: --user {owner}) or choose another"
    )


def test_any_damage_to_a_checkpoint_is_a_user_error(tmp_path):
    with folder(tmp_path) as run:
        run.save_checkpoint(PROGRESS, snapshot())
        path = tmp_path / "checkpoint.npz"
        whole = path.read_bytes()

        @settings(max_examples=100, deadline=None, database=None)
        @given(st.integers(0, len(whole) - 1), st.integers(0, 300), st.binary(max_size=8))
        def mutate(at, cut, inserted):
            path.write_bytes(whole[:at] + inserted + whole[at + cut :])
            with contextlib.suppress(UserError):
                run.load_checkpoint(snapshot())

        mutate()


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    refused(
        tmp_path / "file" / "run",
        f"cannot write {tmp_path}/file/run: Not a directory; make room or choose another "
        "--results, then the same command resumes from the last checkpoint",
    )
