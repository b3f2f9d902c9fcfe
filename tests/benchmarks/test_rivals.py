import json
import os
import sys

import original_stack
from original_stack import machine

import pytest

BENCHMARKS = original_stack.ROOT / "benchmarks"
SETTINGS = ("GOMP_SPINCOUNT", "OPENBLAS_CORETYPE", "PYTHONPATH", "THEANO_FLAGS")


@pytest.fixture
def rivals(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import rivals

    return rivals


@pytest.fixture
def script(tmp_path):
    """A rival that says in what environment it runs, and whether it loaded our stack."""
    path = tmp_path / "rival.py"
    path.write_text(
        f"import os, sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from serve import serve\n"
        "ours = 'original_stack' in sys.modules\n"
        "serve(lambda: None, environment=dict(os.environ), ours=ours)\n"
    )
    return path


def test_another_engine_starts_without_our_settings(rivals, script, monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rival = rivals.Rival([sys.executable, script], rivals.foreign_environment())
    variables = rival.facts["environment"]
    rival.close()
    assert not rival.facts["ours"]
    assert not variables.keys() & set(SETTINGS)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["PATH"] == os.environ["PATH"]


def test_our_rivals_start_with_our_settings(rivals, script):
    rival = rivals.Rival([sys.executable, script])
    variables = rival.facts["environment"]
    assert variables["OMP_NUM_THREADS"] == str(machine.threads())
    assert rival.block(0.01) < 1
    assert rival.start > 0
    rival.close()


def test_a_rival_that_fails_is_named(rivals, tmp_path):
    with pytest.raises(original_stack.errors.UserError) as error:
        rivals.Rival(["false", "a"])
    assert str(error.value) == "false a ended early; expected timings; see above"


def test_page_is_updated_between_its_marks(rivals, tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "ROOT", tmp_path)
    page = tmp_path / "results" / "benchmarks" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text("a\n<!-- made by x -->\nold\n<!-- end -->\nb\n")
    rivals.update_page("x", ["new"])
    assert "old" in page.read_text()  # the results go elsewhere
    monkeypatch.setattr(original_stack, "RESULTS", tmp_path / "results")
    rivals.update_page("x", ["new", "lines"])
    assert page.read_text() == "a\n<!-- made by x -->\nnew\nlines\n<!-- end -->\nb\n"
    rivals.write_record("y", {"a": 1})
    assert json.loads((page.parent / "y.json").read_text()) == {"a": 1}


def test_page_is_what_its_records_give(rivals):
    import training_step
    import xnor

    folder = original_stack.ROOT / "results" / "benchmarks"
    page = (folder / "README.md").read_text()
    steps = [json.loads((folder / f"{step}.json").read_text()) for step in training_step.STEPS]
    assert "\n".join(training_step.table(steps)) in page
    record = json.loads((folder / "xnor.json").read_text())
    assert "\n".join(xnor.table(record["records"])) in page
    weights = record["weights_bytes"].values()
    assert xnor.footnote(tuple(weights), record["machine"]) in page
