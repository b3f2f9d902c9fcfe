import json

import numpy as np
import pytest
from records import add_run

from reproduction.experiments import ROWS
from reproduction.report import findings
from reproduction.report.claims import claims, claims_page, verdicts
from reproduction.report.evidence import VERDICTS

CIFAR10 = {"dataset": "cifar10", "epochs": 500, "epochs_done": 500}
XNOR = {
    "weights_bytes": {"float32": 64, "packed": 2},
    "machine": {"processor": "A processor"},
    "records": [
        {
            "task": "product",
            "size": size,
            "images": 0,
            "over": {"fast": {"plain float kernel": 2 * times, "OpenBLAS sgemm": times}},
        }
        for size, times in ((8192, 9.0), (1024, 4.0))
    ],
}


def lines(results, title):
    """{what: (obtained, verdict)} of a claim."""
    (claim,) = (c for c in claims(findings.read(results, ROWS)) if c.title == title)
    return {line.what: (line.obtained, line.verdict) for line in claim.lines}


def add_errors(results, method, errors, **changes):
    for seed, error in enumerate(errors, 1):
        weights = "binary" if method == "deterministic" else "real"
        changes = {"test_weights": weights, **changes}
        add_run(results, method=method, seed=seed, test_error=error, **changes)


def test_without_evidence_nothing_is_tested(tmp_path):
    all_claims = claims(findings.read(tmp_path, ROWS))
    assert verdicts(all_claims) == {"not tested": sum(len(claim.lines) for claim in all_claims)}
    assert all(line.obtained == "" for claim in all_claims for line in claim.lines)
    page = claims_page(findings.read(tmp_path, ROWS))
    assert "from 0 finished runs" in page
    assert "| SGD: scaled against not | 11.45 against no figure |  | **not tested** |" in page
    assert "MNIST: stochastic minus deterministic | -0.11 |  | **not tested** |" in page


def test_every_verdict_is_explained(tmp_path):
    page = claims_page(findings.read(tmp_path, ROWS)).split("## How to read")[1]
    assert all(f"*{verdict}*" in page for verdict in VERDICTS)


@pytest.mark.parametrize(
    ("stochastic", "obtained", "verdict"),
    [
        ([1.1, 1.2, 1.3], "-0.10 ± 0.00 (3 seeds, paired)", "holds"),
        ([1.3, 1.4, 1.5], "+0.10 ± 0.00 (3 seeds, paired)", "does not hold"),
        ([1.1, 1.3, 1.5], "+0.00 ± 0.25 (3 seeds, paired)", "undecided"),
        ([1.1, 1.2], "-0.10 ± 0.00 (2 seeds, paired)", "undecided"),  # too few
        ([1.1], "-0.20 ± 0.24 (1 and 3 runs)", "undecided"),
    ],
)
def test_order_of_the_methods_is_paired_by_seed(tmp_path, stochastic, obtained, verdict):
    add_errors(tmp_path, "deterministic", [1.2, 1.3, 1.4])
    add_errors(tmp_path, "stochastic", stochastic)
    by_name = lines(tmp_path, "Order of the methods")
    assert by_name["MNIST: stochastic minus deterministic"] == (obtained, verdict)
    assert by_name["MNIST: deterministic minus no regularizer"] == ("", "not tested")


def test_one_run_of_cifar10_is_enough(tmp_path):
    add_errors(tmp_path, "deterministic", [9.9], **CIFAR10)
    add_errors(tmp_path, "stochastic", [8.3], **CIFAR10)
    by_name = lines(tmp_path, "Order of the methods")
    assert by_name["CIFAR-10: stochastic minus deterministic"] == (
        "-1.60 ± 0.80 (1 and 1 runs)",
        "holds",
    )


def test_runs_in_another_setting_are_shown_but_not_judged(tmp_path):
    """The setting nearest to the published one is shown, among the settings that both rows have."""
    unofficial = {"official_data": False, "data": [{"name": "a.gz", "md5": "", "official": False}]}
    for epochs in (10, 20):
        reduced = {**CIFAR10, "epochs": epochs, "epochs_done": epochs}
        for method in ("stochastic", "deterministic"):
            add_errors(tmp_path / str(epochs), method, [20.0], **reduced)
    add_errors(tmp_path / "whole", "stochastic", [8.3], **CIFAR10)
    key = "CIFAR-10: stochastic minus deterministic"
    assert lines(tmp_path, "Order of the methods")[key] == (
        "+0.00 ± 1.11 (1 and 1 runs); 20 epochs instead of 500",
        "reduced setting",
    )
    for method in ("stochastic", "deterministic"):
        add_errors(tmp_path / "unofficial", method, [9.0], **CIFAR10, **unofficial)
    assert lines(tmp_path, "Order of the methods")[key] == (
        "+0.00 ± 0.79 (1 and 1 runs); unofficial data (a.gz)",
        "unofficial data",
    )


def add_losses(results, method, losses, errors):
    add_errors(results, method, errors)
    for seed, loss in enumerate(losses, 1):
        path = results / f"mnist/paper-{method}/seed-{seed}/epochs.csv"
        header = path.read_text().splitlines()[0]
        path.write_text(f"{header}\n2,0.3,9,0.5,1.1,10\n4,0.3,{loss},0.5,1.1,10\n")


@pytest.mark.parametrize(
    ("losses", "errors", "verdict"),
    [
        ([0.3, 0.4, 0.5], [1.2, 1.2, 1.2], "holds"),
        ([0.3, 0.4, 0.5], [1.5, 1.6, 1.7], "does not hold"),  # the error is higher
        ([0.05, 0.14, 0.25], [1.2, 1.2, 1.2], "does not hold"),  # the loss is lower
        ([0.3, 0.4, 0.5], [1.0, 1.2, 1.7], "undecided"),
        ([0.3, 0.4], [1.2, 1.2], "undecided"),
    ],
)
def test_regularization_raises_the_loss_and_not_the_error(tmp_path, losses, errors, verdict):
    add_losses(tmp_path, "none", [0.1, 0.2, 0.3], [1.2, 1.3, 1.2])
    add_losses(tmp_path, "stochastic", losses, errors)
    obtained, judged = lines(tmp_path, "Regularization")["MNIST: stochastic"]
    assert judged == verdict
    assert obtained.startswith(f"loss {np.mean(losses):.2g} against 0.2 (difference ")


def test_multiplications_come_from_the_record(tmp_path):
    shares = {"mnist": 63.3, "cifar10": 66.6, "svhn": 50.0}
    record = {
        name: {"training": share, "test": 100.0, "parts": {}} for name, share in shares.items()
    }
    (tmp_path / "multiplications.json").write_text(json.dumps(record))
    by_name = lines(tmp_path, "Multiplications")
    assert by_name["MNIST: training"] == ("63.3 %", "holds")
    assert by_name["SVHN: training"] == ("50.0 %", "does not hold")
    assert by_name["SVHN: test time, deterministic weights"] == ("100.0 %", "holds")


@pytest.mark.parametrize(("bytes_each", "verdict"), [(1, "holds"), (2, "undecided")])
def test_memory_comes_from_the_deployed_networks(tmp_path, bytes_each, verdict):
    folder = add_run(tmp_path)
    manifest = {"dataset": "mnist", "protocol": "paper", "method": "stochastic", "test_error": 1.2}
    manifest["layers"] = [{"shape": [784, 10]}]
    weights = np.zeros(980 * bytes_each, np.uint8)
    np.savez(folder / "deployed.npz", manifest=json.dumps(manifest), weights0=weights)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "xnor.json").write_text(json.dumps(XNOR))
    of_file = 2 * 7840 / (folder / "deployed.npz").stat().st_size
    memory = list(lines(tmp_path, "Memory").values())
    assert memory[0] == (
        f"{16 / bytes_each:.1f} times less in 1 deployed network ({of_file:.1f} with all else in "
        "the file)",
        verdict,
    )
    assert memory[1][0].startswith(f"{32 / bytes_each:.1f} times less in 1 deployed network (")
    assert memory[2] == ("32.0 times less", "holds")


def add_evaluations(results, errors):
    """Stochastic runs with (binary, binary with own statistics, real, ensemble) errors."""
    for seed, (binary, own, real, ensemble) in enumerate(errors, 1):
        evaluation = {"binary": binary, "binary_own_statistics": own, "real": real}
        evaluation["ensemble"] = {"1": 5.0, "16": ensemble}
        (add_run(results, seed=seed) / "evaluation.json").write_text(json.dumps(evaluation))


def test_real_weights_that_are_not_worse_than_binary_weights(tmp_path):
    add_evaluations(tmp_path, [(9.0, 1.2, 1.15, 1.2), (9.0, 1.3, 1.25, 1.3), (1.4, None, 1.35, 2)])
    by_name = lines(tmp_path, "Weights at test time")
    assert by_name["MNIST: real minus binary weights"] == (
        "-0.05 ± 0.00 (3 seeds, paired)",
        "holds",
    )
    assert by_name["MNIST: ensemble of 16 minus real weights"][1] == "undecided"
    assert by_name["SVHN: real minus binary weights"] == ("", "not tested")


def test_real_weights_that_are_worse(tmp_path):
    add_evaluations(tmp_path, [(1.2, None, 1.7, 1.2), (1.3, None, 1.8, 1.3), (1.4, None, 1.9, 1.4)])
    by_name = lines(tmp_path, "Weights at test time")
    assert by_name["MNIST: real minus binary weights"] == (
        "+0.50 ± 0.00 (3 seeds, paired)",
        "does not hold",
    )
    assert by_name["MNIST: ensemble of 16 minus real weights"][1] == "does not hold"


def test_scaling_falls_back_on_the_runs_that_chose_the_rates(tmp_path):
    short = {**CIFAR10, "epochs": 10, "epochs_done": 10, "best_epoch": 4}
    short.update(method="deterministic", test_weights="binary")
    for rate, scaling, error in ((1.0, "on", 50.0), (2.0, "on", 45.0), (1.0, "off", 43.0)):
        name = f"tuning/{rate}/{scaling}"
        protocol = f"table1-adam-{scaling}"
        add_run(tmp_path, name, {"LR_start": rate}, protocol=protocol, valid_error=error, **short)
    title = "Scaling of the learning rates"
    assert lines(tmp_path, title)["ADAM: scaled against not"] == (
        "45.00 against 43.00 %: the lowest validation errors of the short runs that chose the "
        "learning rates",
        "reduced setting",
    )
    whole = {**CIFAR10, "method": "deterministic", "test_weights": "binary"}
    for scaling, error in (("on", 10.5), ("off", 12.8)):
        add_run(tmp_path, protocol=f"table1-adam-{scaling}", test_error=error, **whole)
    assert lines(tmp_path, title)["ADAM: scaled against not"] == (
        "10.50 against 12.80, -2.30 ± 0.89 (1 and 1 runs)",
        "holds",
    )


def test_speeds_of_a_cpu(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "xnor.json").write_text(json.dumps(XNOR))
    assert list(lines(tmp_path, "Speed of XNOR").values()) == [
        ("18.0 times: fast against plain float kernel on a CPU, A processor", "another machine"),
        ("9.0 times: fast against OpenBLAS sgemm on a CPU, A processor", "another machine"),
        ("", "not tested"),
    ]


def test_speeds_of_a_gpu_replace_speeds_of_a_cpu(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "xnor.json").write_text(json.dumps(XNOR))
    network = {"task": "network", "size": 4096, "images": 10000}
    network["over"] = {"xnor": {"plain float kernel": 7.5, "CLBlast sgemm": 3.0}}
    record = {**XNOR, "machine": {"processor": "A processor", "device": "A GPU"}}
    record["records"] = [network]
    (tmp_path / "benchmarks" / "opencl-gpu.json").write_text(json.dumps(record))
    assert list(lines(tmp_path, "Speed of XNOR").values()) == [
        ("", "not tested"),
        ("", "not tested"),
        ("7.5 times: xnor against plain float kernel on A GPU", "another machine"),
    ]


@pytest.mark.parametrize(
    ("shares", "epochs", "obtained", "verdict"),
    [
        ([50.0, 34.0], 500, "42.0 %, the mean over the layers of 1 run", "holds"),
        ([90.0, 34.0], 500, "62.0 %, the mean over the layers of 1 run", "does not hold"),
        (
            [42.0],
            5,
            "42.0 %, the mean over the layers of 1 run; 5 epochs instead of 500",
            "reduced setting",
        ),
    ],
)
def test_repetitions_come_from_an_evaluation(tmp_path, shares, epochs, obtained, verdict):
    changes = {**CIFAR10, "epochs": epochs, "epochs_done": epochs, "test_weights": "binary"}
    folder = add_run(tmp_path, protocol="bnn-theano", method="bnn", **changes)
    evaluation = {"binary": 11.0, "real": None, "ensemble": {}, "unique_kernels": shares}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert lines(tmp_path, "Repetitions of filters") == {
        "CIFAR-10, protocol bnn-theano": (obtained, verdict),
        "CIFAR-10, protocol bnn-torch7": ("", "not tested"),
    }


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        (
            "multiplications.json",
            '{"mnist": {"training": 101, "test": 0, "parts": {}}}',
            "./reproduce multiplications again",
        ),
        ("multiplications.json", "[", "./reproduce multiplications again"),
        ("benchmarks/xnor.json", "{}", "./reproduce benchmark xnor again"),
        (
            "benchmarks/xnor.json",
            json.dumps({**XNOR, "records": [{"task": "product"}]}),
            "./reproduce benchmark xnor again",
        ),
    ],
)
def test_damaged_records_are_noted(tmp_path, file, content, note):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / file).write_text(content)
    evidence = findings.read(tmp_path, ROWS)
    assert (evidence.multiplications, evidence.xnor) == ({}, None)
    (text,) = evidence.notes
    assert text.startswith(f"{file} is damaged (")
    assert text.endswith(f"; run {note}")
