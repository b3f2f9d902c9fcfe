import json
import os
import sys

import original_stack
from original_stack import machine

import formats
import numpy as np
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
    """A rival that reports its environment, and whether it loaded the stack of this project."""
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
    rivals.update_page("x", "new")
    assert "old" in page.read_text()  # the results go elsewhere
    monkeypatch.setattr(original_stack, "RESULTS", tmp_path / "results")
    rivals.update_page("x", "new\nlines")
    assert page.read_text() == "a\n<!-- made by x -->\nnew\nlines\n<!-- end -->\nb\n"
    rivals.write_record("y", {"a": 1})
    assert json.loads((page.parent / "y.json").read_text()) == {"a": 1}


def test_a_record_names_the_timed_code(rivals):
    facts = rivals.environment()
    assert len(facts["date"]) == len("2026-11-29")
    facts.update(git_commit="0123456789abcdef", git_dirty=True, date="2026-11-29")
    assert rivals.timed_code(facts) == "; commit 0123456789ab with changes, 2026-11-29"
    facts.update(git_commit=None, git_dirty=None)
    assert rivals.timed_code(facts) == "; commit unknown, 2026-11-29"
    assert rivals.timed_code({"processor": "of an early record"}) == ""


def test_page_is_what_its_records_give(rivals):
    import training_step
    import xnor

    folder = original_stack.ROOT / "results" / "benchmarks"
    page = (folder / "README.md").read_text()
    steps = [json.loads((folder / f"{step}.json").read_text()) for step in training_step.STEPS]
    assert training_step.block(steps) in page
    record = json.loads((folder / "xnor.json").read_text())
    assert xnor.rows(record["records"]) in page
    weights = record["weights_bytes"].values()
    assert xnor.footnote(tuple(weights), record["machine"]) in page


def test_tasks_may_have_different_rivals(rivals):
    import xnor

    def record(size, *names):
        return {
            "task": "product",
            "size": size,
            "median_milliseconds": {name: 2.0 for name in names},
            "over": {a: {b: 1.0 for b in names} for a in names},
            "part_timed": {name: 1 for name in names},
        }

    assert xnor.rows([record(8, "a", "b"), record(9, "b")]).splitlines() == [
        "| task | by | ms | x b |",
        "| --- | --- | --- | --- |",
        "| 8 x 8 x 8 | a | 2 | 1.00 |",
        "| 8 x 8 x 8 | b | 2 | 1.00 |",
        "| 9 x 9 x 9 | b | 2 | 1.00 |",
    ]


def test_page_names_a_processor_as_one(rivals):
    """The paper's times are from a GPU, so they are shown beside a GPU only."""
    import xnor

    folder = original_stack.ROOT / "results" / "benchmarks"
    page = (folder / "README.md").read_text()
    for kind, is_gpu in (("gpu", True), ("cpu", False)):
        assert page.count(f"<!-- made by ./reproduce benchmark xnor --opencl: {kind} -->") == 1
        note = xnor.opencl_footnote({"device": "name", "is_gpu": is_gpu})
        assert note.startswith("name. ")
        assert ("GTX 750" in note) == is_gpu
        path = folder / f"opencl-{kind}.json"
        if path.exists():
            record = json.loads(path.read_text())
            assert record["machine"]["is_gpu"] == is_gpu
            assert xnor.rows(record["records"]) in page
            assert xnor.opencl_footnote(record["machine"]) in page


def test_rivals_on_a_device_multiply_alike(rivals, opencl_device, monkeypatch):
    import opencl_rivals

    monkeypatch.setattr(opencl_rivals.opencl, "Device", lambda number: opencl_device)
    monkeypatch.setattr(opencl_rivals.opencl, "is_gpu", lambda device: False)
    monkeypatch.setattr(opencl_rivals, "OPERATIONS", 1)
    random = np.random.RandomState(0)
    a, b = random.randint(0, 2, (130, 70)), random.randint(0, 2, (67, 70))
    expected = ((2 * a - 1) @ (2 * b - 1).T)[:8].tolist()
    for rival in opencl_rivals.rivals_of("product").values():
        step, part, results = opencl_rivals.product(rival, (a, b), 0, 8)
        step()
        assert part == (1 if rival in ("xnor", "packing") else 64 / 130)
        assert results == expected


def test_rivals_on_a_device_compute_the_network(rivals, opencl_device, monkeypatch, tmp_path):
    import opencl_rivals

    monkeypatch.setattr(opencl_rivals.opencl, "Device", lambda number: opencl_device)
    shapes = [[784, 37], [37, 64], [64, 10]]
    manifest, arrays = formats.random_bnn([1, 28, 28], shapes, [False] * 3)
    path = formats.exported(tmp_path / "network.npz", manifest, arrays)
    pixels = np.random.RandomState(0).randint(0, 256, (9, 1, 28, 28)).astype(np.uint8)
    rivals_here = opencl_rivals.rivals_of("network")
    assert "packing" not in rivals_here.values()
    outputs = [
        opencl_rivals.network(rival, pixels, path, 0, 8)[2] for rival in rivals_here.values()
    ]
    assert len(outputs) >= 3
    assert all(output == outputs[0] for output in outputs)
    assert len({tuple(image) for image in outputs[0]}) > 3
