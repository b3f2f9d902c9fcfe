import contextlib
import copy
import json
import os

import original_stack
from original_stack.errors import UserError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.training.records import read_evaluation, read_run

RUNS = sorted((original_stack.ROOT / "results").rglob("run.json"))
EVALUATIONS = sorted((original_stack.ROOT / "results").rglob("evaluation.json"))
RUN = {
    "dataset": "mnist",
    "protocol": "paper",
    "method": "stochastic",
    "seed": 1,
    "epochs": 4,
    "test_weights": "real",
    "published_error": 1.18,
    "hyperparameters": {"H": "Glorot", "LR_start": 0.3, "shift_based": False, "LR_stages": None},
    "data": [{"name": "a file", "md5": "0" * 32, "official": True}],
    "official_data": True,
    "test_images": 53,
    "epochs_done": 4,
    "finished": True,
    "best_epoch": 3,
    "valid_error": 1.1,
    "test_error": 1.2,
    "seconds": 5,
    "cpu": "a processor",
    "threads": 2,
    "versions": {"theano": "1.0.5"},
    "earlier": [{"until_epoch": 2, "cpu": "another", "image": None}],
}
EVALUATION = {"binary": 1.5, "real": None, "ensemble": {"1": 1.7, "16": 2}}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("paths", "read"), [(RUNS, read_run), (EVALUATIONS, read_evaluation)], ids=["run", "evaluation"]
)
def test_records_of_results_are_read_as_they_are(paths, read):
    assert paths
    for path in paths:
        assert read(path, "remedy") == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finished": None}, "finished is null"),
        ({"finished": 1}, "finished is 1"),
        ({"test_error": None}, "test_error is null"),
        ({"test_error": 100.5}, "test_error is 100.5"),
        ({"best_epoch": 5}, "more than 4 epochs"),
        ({"epochs_done": 5}, "more than 4 epochs"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is true"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seconds": float("inf")}, "seconds is Infinity"),
        ({"test_images": 0}, "test_images is 0"),
        ({"dataset": "a\0b"}, r'dataset is "a\u0000b"'),
        ({"dataset": "\ud800"}, r'dataset is "\ud800"'),
        ({"hyperparameters": {"H": [1]}}, 'hyperparameters is {"H": [1]}'),
        ({"data": [{"name": "a file", "md5": 0, "official": True}]}, "data is [{"),
        ({"earlier": [{"cpu": "another"}]}, "earlier is [{"),
        ({"versions": None}, "versions is null"),
    ],
)
def test_damaged_run(tmp_path, changes, reason):
    path = write(tmp_path / "run.json", {**RUN, **changes})
    with pytest.raises(UserError) as caught:
        read_run(path, "do this")
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged ({reason}")
    assert message.endswith("; do this")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", "[" * 100000, '{"a":' * 100000, '{"seconds": 1' + "0" * 5000 + "}"],
    ids=["empty", "list", "null", "nothing", "deep list", "deep object", "long number"],
)
@pytest.mark.parametrize("read", [read_run, read_evaluation])
def test_text_that_is_not_a_record(tmp_path, read, content):
    path = write(tmp_path / "file", content)
    with pytest.raises(UserError, match=r"/file is damaged \(.*\); do this$"):
        read(path, "do this")


def test_a_clock_that_was_set_back_is_not_damage(tmp_path):
    path = write(tmp_path / "run.json", {**RUN, "seconds": -3596.0})
    assert read_run(path, "")["seconds"] == -3596.0


def test_an_unfinished_run_has_no_errors_yet(tmp_path):
    unfinished = {"finished": False, "best_epoch": None, "valid_error": None, "test_error": None}
    path = write(tmp_path / "run.json", {**RUN, **unfinished, "epochs_done": 1})
    assert read_run(path, "")["epochs_done"] == 1


def test_a_fifo_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UserError, match="/run.json is not a regular file; "):
        read_run(tmp_path / "run.json", "")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts),
    max_leaves=4,
)


@pytest.mark.parametrize(("record", "read"), [(RUN, read_run), (EVALUATION, read_evaluation)])
def test_any_damage_is_a_user_error(tmp_path_factory, record, read):
    path = tmp_path_factory.mktemp("record") / "record.json"

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.data())
    def mutate(data):
        if data.draw(st.booleans()):
            mutated = copy.deepcopy(record)
            place = mutated
            while isinstance(place, dict | list) and place:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                key = data.draw(st.sampled_from(keys))
                if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
                    place[key] = data.draw(VALUES)
                    break
                place = place[key]
            content = json.dumps(mutated).encode()
        else:
            content = bytearray(json.dumps(record).encode())
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            read(path, "do this")

    mutate()
