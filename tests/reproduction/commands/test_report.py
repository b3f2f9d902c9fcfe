import os
import shutil

import original_stack

import pytest
from matplotlib.figure import Figure
from records import add_run

from reproduction.commands import report
from reproduction.report import figures

FOREIGN = "was not made by this command; move it away or choose another --results"


def run(results, capsys, status=0):
    """The error that the command prints."""
    assert report.main(["--results", str(results)]) == status
    return capsys.readouterr().err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def drawn(monkeypatch):
    """Small files instead of the figures: {file name: bytes}."""
    files = {"comparison.svg": b"1", "comparison.png": b"2", "curves-mnist-paper.svg": b"3"}
    for name in files:
        files[name] += figures.MADE.encode()
    monkeypatch.setattr(figures, "draw", lambda *_: ({"comparison": "A title"}, dict(files)))
    return files


def test_the_same_runs_give_the_same_files(tmp_path, capsys):
    add_run(tmp_path)
    assert report.main(["--results", str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"{tmp_path}/README.md: 1 run, 0 notes\n", "")
    first = contents(tmp_path)
    assert {path.name for path in first if path.parent.name == "figures"} == {
        f"{name}.{suffix}"
        for name in (
            "comparison",
            *(f"{kind}-mnist-paper" for kind in ("curves", "weights", "features")),
        )
        for suffix in ("svg", "png")
    }
    assert run(tmp_path, capsys) == ""
    assert contents(tmp_path) == first


def test_only_stale_pictures_of_this_command_are_removed(tmp_path, capsys, drawn):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curves-old.svg").write_text(f"<svg>{figures.MADE}</svg>")
    others = {"curves-mine.svg": "<svg/>", "notes.txt": figures.MADE, "weights-x.png": ""}
    for name, content in others.items():
        (tmp_path / "figures" / name).write_text(content)
    assert run(tmp_path, capsys) == ""
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == drawn.keys() | others.keys()


@pytest.mark.parametrize(
    "name", ["README.md", "article.md", "results.csv", "figures/comparison.svg"]
)
@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), os.mkfifo, os.mkdir])
def test_a_file_of_others_is_not_replaced(tmp_path, capsys, drawn, name, make):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curves-old.svg").write_text(figures.MADE)
    make(tmp_path / name)
    before = contents(tmp_path)
    assert run(tmp_path, capsys, 2) == f"report: {tmp_path / name} {FOREIGN}\n"
    assert contents(tmp_path) == before


def test_the_readme_of_the_project_is_not_replaced(tmp_path, capsys, drawn, monkeypatch):
    shutil.copy(original_stack.ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    assert run(".", capsys, 2) == f"report: README.md {FOREIGN}\n"
    assert contents(tmp_path) == before


def test_a_page_of_an_earlier_version_is_replaced(tmp_path, capsys, drawn):
    (tmp_path / "figures").mkdir()
    for name in ("curves-mnist-paper.svg", "curves-old.svg", "curves-old.png", "curves-mine.svg"):
        (tmp_path / "figures" / name).write_text("<svg/>")
    (tmp_path / "README.md").write_text(
        "# Published and obtained error rates\n\nMade by `./reproduce report` from 1 finished run\n"
        "![](figures/curves-mnist-paper.svg)\n![](figures/curves-old.svg)\n"
    )
    assert run(tmp_path, capsys) == ""
    assert "from 0 finished runs" in (tmp_path / "README.md").read_text()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {*drawn, "curves-mine.svg"}


def test_results_without_a_name_are_refused(tmp_path, capsys, drawn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        report.main(["--results", ""])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "report: argument --results: '' is not the name of a folder; --help lists the options\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(tmp_path, capsys):
    assert run(tmp_path / "x", capsys, 2) == (
        f"report: {tmp_path}/x is not a folder; name one that holds runs with --results\n"
    )


@pytest.mark.parametrize("writes", range(8))
def test_a_report_that_stops_leaves_each_file_old_or_new(
    tmp_path, capsys, drawn, monkeypatch, writes
):
    """No figure of the previous report is lost, whichever write it stops before."""
    drawn["weights-stale.svg"] = b"old" + figures.MADE.encode()
    run(tmp_path, capsys)
    old = contents(tmp_path)
    del drawn["weights-stale.svg"]
    for name in drawn:
        drawn[name] = b"new" + drawn[name]
    add_run(tmp_path / "runs")
    left = [writes]
    write = report.write_atomically

    def stop(path, content):
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        write(path, content)

    monkeypatch.setattr(report, "write_atomically", stop)
    assert run(tmp_path, capsys, 2) == (
        f"report: cannot write {tmp_path}: No space left on device; make it writable or make room\n"
    )
    monkeypatch.setattr(report, "write_atomically", write)
    now = {path: content for path, content in contents(tmp_path).items() if path in old}
    assert now.keys() == old.keys()
    texts = ("results.csv", "claims.md", "networks.md", "article.md", "README.md")
    order = [*(tmp_path / "figures" / name for name in drawn), *(tmp_path / name for name in texts)]
    assert {path for path in old if now[path] != old[path]} == set(order[:writes])
    assert all(now[path] == drawn[path.name] for path in order[: min(writes, 3)])
    (tmp_path / "figures" / f".comparison.svg.{'0' * 32}.part").write_text("of a killed one")
    assert run(tmp_path, capsys) == ""
    assert {path.name for path in (tmp_path / "figures").iterdir()} == drawn.keys()


def test_readme_has_the_table_of_the_results_of_the_project(tmp_path, capsys, drawn, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# A\n<!-- made by ./reproduce report -->\nold\n<!-- end -->\nb\n"
        "<!-- made by ./reproduce report: memory and disk -->\nold\n<!-- end -->\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(original_stack, "ROOT", tmp_path)
    before = readme.read_text()
    run(tmp_path / "elsewhere", capsys)
    assert readme.read_text() == before
    (tmp_path / "results").mkdir()
    run(tmp_path / "results", capsys)
    lines = readme.read_text().splitlines()
    assert lines[:3] == [
        "# A",
        "<!-- made by ./reproduce report -->",
        "| test error on MNIST (%) | published | obtained | seeds | difference | verdict |",
    ]
    assert lines[-7:] == [
        "",
        "![A title](results/figures/comparison.svg)",
        "<!-- end -->",
        "b",
        "<!-- made by ./reproduce report: memory and disk -->",
        "",
        "<!-- end -->",
    ]


def test_what_is_committed_is_what_the_runs_give(tmp_path, capsys, monkeypatch):
    """A report in a fresh clone changes no page, and draws the committed figures."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write(b"drawn"))
    committed = original_stack.ROOT / "results"
    shutil.copytree(committed, tmp_path / "results")
    shutil.copy(original_stack.ROOT / "README.md", tmp_path)
    monkeypatch.setattr(original_stack, "ROOT", tmp_path)
    assert run(tmp_path / "results", capsys) == ""
    texts = ("README.md", "claims.md", "networks.md", "article.md", "scale.md", "results.csv")
    for page in ("README.md", *(f"results/{name}" for name in texts)):
        assert (tmp_path / page).read_text() == (committed.parent / page).read_text()
    drawn = {path.name for path in (tmp_path / "results" / "figures").iterdir()}
    assert drawn == {path.name for path in (committed / "figures").iterdir()}
