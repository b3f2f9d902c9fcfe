import csv
import io
import json
import re

import original_stack

from records import add_run

from reproduction.experiments import ROWS
from reproduction.published import rows as published
from reproduction.report import findings, times
from reproduction.report import page as report
from reproduction.report.runs import read_runs


def make(results):
    """The page of a folder of results."""
    picture = {"Published and obtained": "figures/comparison.svg"}
    return report.page(findings.read(results, ROWS), picture)


def cells(page, start):
    """The cells of the first line of the page that begins with `start`."""
    line = next(line for line in page.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_page_without_runs(tmp_path):
    page = make(tmp_path)
    assert "from 0 finished runs" in page
    assert "\n\n![Published and obtained](figures/comparison.svg)\n\n## MNIST\n\n" in page
    assert cells(page, "| No regularizer | 1.30") == (
        ["No regularizer", "1.30 ± 0.04 (6 runs)", "", "**missing**", "", "0", "", "", "paper", "7"]
    )
    assert cells(page, "| BinaryConnect (stoch.), release")[1:3] == ["1.15", ""]
    assert cells(page, "| SVHN | `./reproduce svhn --method none")[1:] == (
        ["`./reproduce svhn --method none --seed N`", "none", "not measured"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --protocol release")[1] == (
        "`./reproduce mnist --protocol release --method stochastic --seed N`"
    )
    assert "EBP 2.2 ± 0.1; Bitwise DNNs 1.33" in page
    assert cells(page, "| small CNN, SGD, learning rates not") == (
        ["small CNN, SGD, learning rates not scaled", "–", "", "**missing**", "", "0", "", ""]
        + ["table1-sgd-off", "1, 5, 7, 10, 12, 14"]
    )
    assert cells(page, "| CIFAR-10 | `./reproduce cifar10 --optimizer nesterov --lr-scaling on")[
        1:
    ] == ["`./reproduce cifar10 --optimizer nesterov --lr-scaling on --seed N`"] + (
        ["none", "not measured"]
    )


def test_page_of_runs(tmp_path):
    for seed, error, threads in ((1, 1.16, 1), (2, 1.18, 2), (3, 1.2, 2)):
        seconds = 7200.0 + seed
        add_run(tmp_path, seed=seed, test_error=error, seconds=seconds, threads=threads, earlier=[])
    elsewhere = {"until_epoch": 400, "cpu": "Another", "threads": 1}
    add_run(tmp_path, seed=4, method="none", seconds=7200.0, threads=2, earlier=[elsewhere])
    page = make(tmp_path)
    assert cells(page, "| Another") == (
        ["Another, 1 thread", "", "unknown", "1", "2026-11-20", "2026-11-20"]
    )
    assert cells(page, "| BinaryConnect (stoch.) | 1.18")[2:] == (
        ["1.18", "**reproduced**", "0.02", "3", "1.13 to 1.23", "+0.00 ± 0.05", "paper"]
        + ["7, 11, 12"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --method none")[2:] == (
        ["4: 1.20", "2.0 hours (median of the runs with 1 or 2 threads)"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --method stochastic")[2:] == (
        ["1: 1.16, 2: 1.18, 3: 1.20", "2.0 hours (median of the runs with 2 threads)"]
    )
    for threads, runs in (("1 thread", "1"), ("2 threads", "3")):
        processor = f"A processor, {threads}"
        assert cells(page, f"| {processor} |") == (
            [processor, "theano 1.0.5", "0123456789ab", runs, "2026-11-20", "2026-11-20"]
        )
    assert "## Notes" not in page
    assert "## Runs in other settings" not in page


def test_table_of_mnist(tmp_path):
    for seed, error in ((1, 1.16), (2, 1.18), (3, 1.2)):
        add_run(tmp_path, seed=seed, test_error=error)
    add_run(tmp_path, method="none", epochs=10, epochs_done=10)
    runs, _ = read_runs(tmp_path, ROWS)
    table = report.mnist_table(runs, ("A title", "results/figures/comparison.svg"))
    assert table.splitlines() == [
        "| test error on MNIST (%) | published | obtained | seeds | difference | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        "| No regularizer | 1.30 ± 0.04 (6 runs) |  | 0 |  | **reduced setting** |",
        "| BinaryConnect (det.) | 1.29 ± 0.08 (6 runs) |  | 0 |  | **missing** |",
        "| BinaryConnect (stoch.) | 1.18 ± 0.04 (6 runs) | 1.18 | 3 | +0.00 ± 0.05 | "
        "**reproduced** |",
        "| 50% Dropout | 1.01 ± 0.04 (6 runs) |  | 0 |  | **missing** |",
        "| BinaryConnect (stoch.), release | 1.15 |  | 0 |  | **missing** |",
        "| BNN (Theano) | 0.96 |  | 0 |  | **missing** |",
        "| BNN (Torch7) | 1.40 |  | 0 |  | **missing** |",
        "",
        "Verdicts of all 23 published rows: *missing* 21, *reduced setting* 1, *reproduced* 1. "
        "*Reproduced*: the 95% interval of the difference lies",
        "within 15% of the published error. *Consistent*: it includes zero, and the published "
        "error is too uncertain to say more. *Release*: the",
        "hyperparameters of the released code.",
        "",
        "![A title](results/figures/comparison.svg)",
    ]


def test_results_csv_has_a_line_for_each_run(tmp_path):
    add_run(tmp_path, fused=True, git_dirty=True, versions={"blas": "OpenBLAS"}, lock_sha256="0")
    add_run(tmp_path, "a, b", seed=2, epochs=10, epochs_done=10, cpu='one, "two"')
    text = report.results_csv(read_runs(tmp_path, ROWS)[0])
    first, second = csv.DictReader(io.StringIO(text))
    assert first == {
        "run": "a, b",
        "dataset": "mnist",
        "protocol": "paper",
        "method": "stochastic",
        "seed": "2",
        "epochs": "10",
        "best_epoch": "4",
        "valid_error (%)": "1.1",
        "test_error (%)": "1.2",
        "test_weights": "real",
        "departures": "10 epochs instead of 1,000",
        "seconds (s)": "7200",
        "threads": "2",
        "cpu": 'one, "two"',
        "graph": "",
        "blas": "",
        "git_commit": "0123456789abcdef",
        "git_dirty": "False",
        "lock_sha256": "",
        "official_data": "True",
    }
    expected = {"graph": "fused", "blas": "OpenBLAS", "lock_sha256": "0", "git_dirty": "True"}
    assert expected.items() <= second.items()


def test_runs_in_other_settings_are_kept_out_of_verdicts(tmp_path):
    add_run(tmp_path, hyperparameters={"LR_start": 0.1})
    page = make(tmp_path)
    assert cells(page, "| BinaryConnect (stoch.) | 1.18")[2:8] == (
        ["", "**reduced setting**", "", "0", "", ""]
    )
    assert cells(page, "| mnist | paper | stochastic |")[3:] == (
        ["LR_start 0.1 instead of 0.3", "1.20", "", "1", "1.00 to 1.43"]
    )


def test_texts_of_a_record_stay_in_their_cells(tmp_path):
    data = [{"name": "a|b <!-- `x`", "md5": "", "official": False}]
    changes = {"epochs": 10, "epochs_done": 10, "cpu": "one | two", "versions": {"a|": "`"}}
    add_run(tmp_path, data=data, official_data=False, **changes)
    page = make(tmp_path)
    assert "| unofficial data (a\\|b &lt;!-- 'x'); 10 epochs instead of 1,000 |" in page
    assert "| one \\| two, 2 threads | a\\| ' |" in page


def test_times_are_estimated_from_a_shorter_run_or_the_benchmark(tmp_path):
    add_run(tmp_path, epochs=10, epochs_done=10, best_epoch=10, seconds=100.0)
    add_run(tmp_path, seed=2, seconds=-3596.0)  # the clock was set back
    start = "| MNIST | `./reproduce mnist --method stochastic"
    assert cells(make(tmp_path), start)[2:] == [
        "2: 1.20",
        "about 2.8 hours (from a run of 10 epochs)",
    ]
    (tmp_path / "benchmarks").mkdir()
    timed = {
        "median_milliseconds": {"fused": 36.0},
        "machine": {"threads": 4},
    }  # 250 steps an epoch: 9 s
    (tmp_path / "benchmarks" / "mnist-published.json").write_text(json.dumps(timed))
    (tmp_path / "benchmarks" / "cifar10.json").write_text("{}")
    page = make(tmp_path)
    assert cells(page, start)[2:] == (
        ["2: 1.20", "about 2.5 hours (training steps only, by the benchmark)"]
    )
    assert (
        "- benchmarks/cifar10.json is damaged ('median_milliseconds'); run ./reproduce benchmark "
        "again\n"
    ) in page


def test_benchmarks_that_give_no_time_are_noted(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for value in (None, "x", -1, 0, float("nan"), 10**400, []):
        for record in (
            {"median_milliseconds": {"fused": value}, "machine": {"threads": 2}},
            {"median_milliseconds": {"fused": 1.0}, "machine": {"threads": value}},
        ):
            (tmp_path / "benchmarks" / "svhn.json").write_text(json.dumps(record))
            epochs, (note,) = times.read_benchmarks(tmp_path, ROWS)
            assert epochs == {}
            assert note.startswith("benchmarks/svhn.json is damaged (")


def test_an_epoch_of_each_row_by_the_benchmark(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for step in times.BENCHMARKS:
        timed = {"median_milliseconds": {"fused": 1000.0}, "machine": {"threads": 2}}
        (tmp_path / "benchmarks" / f"{step}.json").write_text(json.dumps(timed))
    epochs, notes = times.read_benchmarks(tmp_path, ROWS)
    assert notes == []
    table1 = {key[:2]: (900, 2) for key in ROWS if key[1].startswith("table1-")}
    assert epochs == {
        ("mnist", "paper"): (250, 2),
        ("mnist", "bnn-theano"): (500, 2),
        ("mnist", "bnn-torch7"): (500, 2),
        ("cifar10", "paper"): (900, 2),
        ("cifar10", "bnn-theano"): (900, 2),
        ("svhn", "paper"): (11967, 2),
        **table1,
    }


def test_rows_of_table_1(tmp_path):
    small = {"dataset": "cifar10", "epochs": 500, "epochs_done": 500}
    small.update(method="deterministic", test_weights="binary")
    add_run(tmp_path, **small, protocol="table1-sgd-off", test_error=90.0)
    add_run(tmp_path, **small, protocol="table1-adam-on", test_error=10.5)
    reduced = {"hyperparameters": {"width": 0.25}, "test_error": 30.0}
    add_run(tmp_path, **small, **reduced, protocol="table1-sgd-on")
    page = make(tmp_path)
    assert cells(page, "| small CNN, SGD, learning rates not")[1:8] == (
        ["–", "90.00", "**not judged**", "", "1", "89.40 to 90.58", ""]
    )
    assert cells(page, "| small CNN, ADAM, learning rates sc")[1:8] == (
        ["10.47", "10.50", "**not judged**", "", "1", "9.91 to 11.12", "+0.03 ± 0.85"]
    )
    assert cells(page, "| small CNN, SGD, learning rates sc")[1:8] == (
        ["11.45", "", "**reduced setting**", "", "0", "", ""]
    )
    assert cells(page, "| cifar10 | table1-sgd-on")[3:5] == ["width 0.25", "30.00"]


def test_runs_that_chose_hyperparameters_are_separate(tmp_path):
    changes = {"epochs": 10, "epochs_done": 10, "method": "dropout"}
    for rate, error in ((0.3, 2.5), (1.0, 2.25)):
        name = f"tuning/LR_start={rate:g}/mnist/paper-dropout/seed-1"
        hyperparameters = {"LR_start": rate}
        folder = add_run(tmp_path, name, hyperparameters, **changes, valid_error=error)
        (folder / "first_layer.npz").unlink()
    (add_run(tmp_path, "tuning/LR_start=9/mnist/x/seed-1") / "run.json").write_text("{")
    page = make(tmp_path)
    assert "from 0 finished runs" in page
    assert cells(page, "| 50% Dropout")[3] == "**missing**"
    tuned, _ = read_runs(tmp_path, ROWS, tuning=True)
    setting = "10 epochs instead of 1,000"
    assert report.tuning_page(tuned).splitlines()[-2:] == [
        f"| mnist | paper | dropout | LR_start=1 | {setting} | 2.25 |",
        f"| mnist | paper | dropout | LR_start=0.3 | {setting}; LR_start 0.3 instead of 1 | 2.50 |",
    ]
    assert page.splitlines()[-1].startswith(
        "- `tuning/LR_start=9/mnist/x/seed-1` is left out: run.json is damaged ("
    )


def test_evaluations_are_shown_with_a_column_for_each_ensemble(tmp_path):
    for seed, sizes in ((1, {"1": 3.0, "4": 2.0}), (2, {"16": 1.5})):
        seconds = {"binary": 2.0, "real": None, "ensemble": sizes}
        (add_run(tmp_path, seed=seed) / "evaluation.json").write_text(json.dumps(seconds))
    page = make(tmp_path)
    section = page.split("## Test-time weights")[1].split("## ")[0]
    assert section.splitlines()[-3:-1] == [
        "| mnist | paper | stochastic | 1 | 2.00 |  |  | 3.00 | 2.00 |  |  |",
        "| mnist | paper | stochastic | 2 | 2.00 |  |  |  |  | 1.50 |  |",
    ]


def test_deviations_are_in_deviations_md():
    page = (original_stack.ROOT / "DEVIATIONS.md").read_text()
    written = set(re.findall(r'^<a id="(\d+)"></a>\*\*\1\. ', page, flags=re.MULTILINE))
    named = {number for row in published() for number in row["deviations"].split()}
    assert named
    assert named <= written


def test_commands_of_table_1_fit_the_script():
    rows = [row for (dataset, *_), row in ROWS.items() if dataset == "cifar10"]
    rows = [row for row in rows if row.protocol.startswith("table1-")]
    assert len(rows) == 6
    for row in rows:
        words = times.command("cifar10", row.protocol, row.method).split()
        chosen = dict(zip(words[2::2], words[3::2], strict=True))
        expected = {"--optimizer": row.optimizer, "--lr-scaling": row.choices["lr_scaling"]}
        assert chosen == {**expected, "--seed": "N"}


def test_links_hold_in_any_folder(tmp_path):
    """The folder may be a mount, with no files of the project beside it."""
    add_run(tmp_path)
    links = re.findall(r"\]\(([^)]*)\)", make(tmp_path))
    pages = ["article.md", "claims.md", "networks.md", "scale.md"]
    assert links == ["#how-to-read", *pages, "results.csv", "figures/comparison.svg"]
    assert "\n## How to read\n" in make(tmp_path)


def test_published_setting_on_unofficial_data_is_separate(tmp_path):
    known = "a788cdb6d139c4d244786f4d8e2ff15d"
    data = {"official_data": False, "dataset": "cifar10", "epochs": 500, "epochs_done": 500}
    for method, md5, error in (("none", known, 10.8), ("stochastic", "0" * 32, 8.2)):
        files = [{"name": "cifar-10-python.tar.gz", "md5": md5, "official": False}]
        add_run(tmp_path, **data, method=method, data=files, test_error=error)
    page = make(tmp_path)
    assert cells(page, "| No regularizer | 10.64")[2:8] == (
        ["", "**unofficial data**", "", "0", "", ""]
    )
    section = page.split("## Published setting, unofficial data")[1].split("\n## ")[0]
    assert cells(section, "| CIFAR-10 | paper | No reg")[3:] == (
        ["10.64", "10.80", "", "1", "10.20 to 11.42", "+0.16 ± 0.86", "20 of 10,000"]
    )
    assert cells(section, "| CIFAR-10 | paper | BinaryConnect (stoch.)")[-1] == "not known"
    assert "## Runs in other settings" not in page


def test_costs_of_rows(tmp_path):
    add_run(tmp_path, seconds=3600.0, threads=2)
    add_run(tmp_path, seed=2, seconds=1800.0, threads=1, epochs=10, epochs_done=10)
    tuned = "tuning/LR_start=1/mnist/paper-none/seed-1"
    add_run(tmp_path, tuned, {"LR_start": 1.0}, method="none", seconds=7200.0, threads=1)
    section = make(tmp_path).split("## Costs")[1].split("\n## ")[0]
    assert section.splitlines()[-3:] == [
        "| mnist | paper | none |  |  | 2.0 (1) | 2.0 |",
        "| mnist | paper | stochastic | 2.0 (1) | 0.5 (1) |  | 2.5 |",
        "| all |  |  | 2.0 | 0.5 | 2.0 | 4.5 |",
    ]
    (tmp_path / "empty").mkdir()
    assert "## Costs" not in make(tmp_path / "empty")


def test_other_figures_have_what_was_obtained(tmp_path):
    add_run(tmp_path, protocol="release", epochs=250, epochs_done=250, seconds=9000.0, threads=1)
    shares = {"training": 63.29, "test": 100.0, "parts": {}}
    (tmp_path / "multiplications.json").write_text(json.dumps({"mnist": shares}))
    page = make(tmp_path)
    start = "| BinaryConnect | README of the released code | MNIST | GTX 680"
    assert cells(page, start)[-1] == "2.5 on a CPU (median of the runs with 1 thread)"
    assert cells(page, "| BinaryConnect | text |  | training |")[-2:] == ["66.7", "MNIST 63.3"]
    assert cells(page, "| BinaryConnect | text |  | weights |")[-1] == ""
