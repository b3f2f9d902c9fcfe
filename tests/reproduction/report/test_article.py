from records import add_run

from reproduction.experiments import ROWS
from reproduction.report import findings
from reproduction.report.article import article

# Published as the error of one run.
UNCERTAIN = "BinaryConnect (stoch.), release; BNN (Theano); BNN (Torch7)"


def write(results):
    return article(findings.read(results, ROWS), {"A title": "figures/comparison.svg"})


def test_article_without_runs(tmp_path):
    text = write(tmp_path)
    assert "No row has been run in its published setting yet." in text
    assert "MNIST, not yet run, needed" in " ".join(text.split())
    rows = "No regularizer; BinaryConnect (det.); BinaryConnect (stoch.); 50% Dropout"
    assert f"| MNIST | {rows}; {UNCERTAIN} | missing | 3 | not measured |\n" in text
    assert "Verdicts of the 23 rows: *missing* 23." in text


def test_numbers_of_the_article_come_from_the_runs(tmp_path):
    for seed, error in ((1, 1.16), (2, 1.18), (3, 1.2)):
        add_run(tmp_path, seed=seed, test_error=error)
    for seed, error in ((1, 1.0), (2, 1.3), (3, 1.6)):
        add_run(tmp_path, method="none", seed=seed, test_error=error)
    text = write(tmp_path)
    assert "Verdicts of the 23 rows: *missing* 21, *not enough runs* 1, *reproduced* 1." in text
    assert "from 6 finished runs" in text
    assert "1.16, 1.18, 1.20 % by seed" in text
    assert "took 24 CPU hours" in text
    assert "![A title](figures/comparison.svg)" in text
    assert "| BinaryConnect (stoch.) | 1.18 ± 0.04 (6 runs) | 1.18 |" in text
    rows = f"BinaryConnect (det.); 50% Dropout; {UNCERTAIN}"
    assert f"| MNIST | {rows} | missing | 3 | not measured |" in text
    assert "| MNIST | No regularizer | not enough runs | more | 2.0 hours, 2 threads |" in text


def test_a_row_that_no_run_can_decide_is_not_open(tmp_path):
    row = {"protocol": "bnn-torch7", "method": "bnn", "test_weights": "binary"}
    for seed, error in ((1, 1.46), (2, 1.7), (3, 1.6)):
        add_run(tmp_path, **row, epochs=200, epochs_done=200, seed=seed, test_error=error)
    text = write(tmp_path)
    assert "Verdicts of the 23 rows: *consistent* 1, *missing* 22." in text
    assert "; BinaryConnect (stoch.), release; BNN (Theano) | missing | 3 |" in text
