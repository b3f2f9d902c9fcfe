import json
import types

import pytest
from checks import refusal

from reproduction.sweep import plan

PAPER = [("mnist", "paper", m) for m in ("stochastic", "deterministic", "none", "dropout")]


def options(results, **given):
    chosen = {"rows": None, "seeds": None, "options": [], **given}
    return types.SimpleNamespace(results=results, **chosen)


def test_rows():
    assert plan.rows("mnist:paper") == PAPER
    assert plan.rows("mnist:none:paper,mnist:paper:none") == [("mnist", "paper", "none")]
    assert plan.rows("svhn:stochastic") == [("svhn", "paper", "stochastic")]
    assert ("mnist", "release", "none") not in plan.rows("mnist")  # has no published error
    assert len(plan.rows(None)) == 23
    assert plan.rows("digits:bnn-theano") == [("digits", "bnn-theano", "bnn")]


def test_unknown_rows():
    assert refusal(plan.rows, "svhn:dropout") == (
        "--rows: no row is 'svhn:dropout'; expected one of svhn:bnn-theano:bnn, "
        "svhn:bnn-torch7:bnn, svhn:paper:deterministic, svhn:paper:none, svhn:paper:stochastic"
    )
    assert refusal(plan.rows, "minst") == (
        "--rows: no row is 'minst'; expected one of mnist[:protocol][:method], "
        "digits[:protocol][:method], cifar10[:protocol][:method], svhn[:protocol][:method]"
    )


def test_seeds():
    assert plan.seeds("1-3,7,2") == [1, 2, 3, 7]


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-2-3", "4294967296", "1-2000"])
def test_no_seeds(text):
    message = f"--seeds: {text!r} is not a seed or a range of them such as 1-6"
    assert refusal(plan.seeds, text) == message


def test_seeds_that_are_missing_for_a_verdict(tmp_path):
    """Three seeds are needed if the published figure is a mean over several, otherwise one."""
    jobs = plan.plan(options(tmp_path / "new", rows="mnist:paper:none,cifar10:paper:none"))
    assert [job.arguments for job in jobs] == [
        ["mnist", "--method", "none", "--seed", "1"],
        ["mnist", "--method", "none", "--seed", "2"],
        ["mnist", "--method", "none", "--seed", "3"],
        ["cifar10", "--method", "none", "--seed", "1"],
    ]


def test_memory_is_what_was_measured_and_some_more():
    row = {"row": "mnist:paper:none", "first_memory": 2 * 10**9, "memory": 10**9}
    scale = {"runs": [row]}
    assert plan.memory(("mnist", "paper", "none"), scale) == 2500
    assert plan.memory(("digits", "paper", "stochastic"), scale) == 2500
    assert plan.memory(("svhn", "paper", "none"), scale) == plan.UNKNOWN_MEMORY


def test_only_finished_runs_are_left_out(tmp_path, capsys):
    for seed, finished in ((1, True), (2, False)):
        folder = tmp_path / "digits" / "paper-none" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"finished": finished, "epochs_done": 5}))
    jobs = plan.plan(options(tmp_path, rows="digits:paper:none", seeds="1-3"))
    assert [(job.name, job.epochs_done) for job in jobs] == [
        ("digits-paper-none-seed-2", 5),
        ("digits-paper-none-seed-3", 0),
    ]
    plan.show(jobs)
    assert capsys.readouterr().out == (
        "./reproduce mnist --method none --seed 2 --data digits    not measured, 5 epochs done\n"
        "./reproduce mnist --method none --seed 3 --data digits    not measured\n"
        "2 runs, about 0 CPU hours, and 2 runs that were not measured\n"
    )


def test_a_row_without_a_published_error_needs_seeds(tmp_path):
    assert refusal(plan.plan, options(tmp_path, rows="mnist:release:none")) == (
        "--rows: mnist:release:none has no published error; say which --seeds"
    )


def test_options_go_to_every_run(tmp_path):
    given = options(tmp_path, rows="svhn:stochastic", seeds="4", options=["--epochs", "2"])
    (job,) = plan.plan(given)
    assert job.arguments == ["svhn", "--method", "stochastic", "--seed", "4", "--epochs", "2"]
    (whole,) = plan.plan(options(tmp_path, rows="svhn:stochastic", seeds="4"))
    assert whole.seconds > 3 * 86400
    assert job.seconds == pytest.approx(whole.seconds * 2 / 200)


@pytest.mark.parametrize("given", [["--data=x/letters.npz"], ["--data", "letters.npz"]])
def test_own_data_has_a_folder_of_its_own(tmp_path, given):
    for name, finished in (("mnist", True), ("mnist-letters", False)):
        folder = tmp_path / name / "paper-none" / "seed-1"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"finished": finished, "epochs_done": 5}))
    (job,) = plan.plan(options(tmp_path, rows="mnist:paper:none", seeds="1", options=given))
    assert job.folder == tmp_path / "mnist-letters/paper-none/seed-1"
    assert job.epochs_done == 5


def test_a_damaged_record_is_named(tmp_path):
    folder = tmp_path / "digits" / "paper-none" / "seed-1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("[]")
    message = refusal(plan.plan, options(tmp_path, rows="digits:paper:none", seeds="1"))
    assert message.startswith(f"{folder}/run.json is damaged (")
    assert message.endswith("); run it again with --restart")
