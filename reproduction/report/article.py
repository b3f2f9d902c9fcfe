"""The reproduction in three pages, with the headings of ReScience: results/article.md."""

from collections import defaultdict

from reproduction.report.claims import claims, counted, verdicts
from reproduction.report.evidence import VERDICTS
from reproduction.report.markdown import MADE, NAMES, table
from reproduction.report.page import comparison_table, unofficial_table
from reproduction.report.statistics import CONFIDENCE, ENOUGH_RUNS, MARGIN, verdicts_of
from reproduction.report.times import cpu_hours, duration, threads_of, time_of_a_run

TEXT = """\
# BinaryConnect and Binarized Neural Networks, reproduced in the stack they were written in

{made} {runs} finished runs and the records of commands; no number below is typed by hand.

## Scope of the reproduction

[BinaryConnect](https://arxiv.org/abs/1511.00363) (Courbariaux, Bengio and David, 2015) trains
networks whose weights are +1 or -1 in the forward and backward passes, while real-valued weights
are updated and clipped. [Binarized Neural Networks](https://arxiv.org/abs/1602.02830)
(Courbariaux, Hubara, Soudry, El-Yaniv and Bengio, 2016) binarizes the activations too. We train
their published experiments on MNIST, CIFAR-10 and SVHN: {rows} rows, of three tables and of the
README of the released code. The claims are:

{claims}

Of the {statements} statements that these claims make, {counted}. [claims.md](claims.md) has each
of them with its statistic.

## Method

Networks, hyperparameters, preprocessing and model selection follow the papers and the released
code. If the two differ, or both are silent, `DEVIATIONS.md` numbers the choice. The stack is that
of 2015, Theano and Lasagne, pinned and made to run on Python 3.11. The inner loops of training are
C++ ops that compute the same functions; each is tested against plain Theano. An interrupted run
resumes bit for bit. The record of a run names the checksums of its data files, the versions, the
processor and the commit.

A row is judged by the {confidence:.0%} interval of the difference between our mean and the
published error. It is *reproduced* if the interval includes zero and lies within {margin:.0%} of
the published error, which is an equivalence test. It is *consistent* if the interval includes
zero, but the published figure is the error of one run and too uncertain for that test. Such a row,
and one whose published figure is a mean over several runs, needs at least {enough} seeds. Runs in
reduced settings or on unofficial data files are never judged. The [report](README.md#how-to-read)
gives the full rule, and the differences that a given number of seeds can show.

## Results

Verdicts of the {rows} rows: {judged}.

{tables}

![{title}]({picture})

The verdicts of the claims:

{verdicts}

{costs}

## What was easy

The released scripts give the exact networks and hyperparameters of most rows. The method itself
is a page of code. Stochastic BinaryConnect on MNIST, {stochastic}, needed no search for
hyperparameters.

## What was difficult

- *The layer that never binarized.* The released convolution layer overrides a method that Lasagne
  0.1 does not have. With that version the weights silently stay real (`DEVIATIONS.md`, 5).
- *The scale that never arrived.* The released MNIST script prints `W_LR_scale` but does not pass
  it on (4).
- *The channel loop that returns early.* The released normalization of SVHN returns inside its
  loop over the channels, so that only the first is normalized. The published error was very
  probably obtained in this way (9).
- *A table without its network.* Table 1 compares optimizers on a small network that the paper
  does not describe, and its script was not released. Our network is an inference (14).
- *Rounding.* Theano changed how it rounds a half, which decides the sign of zero weights (1).
- *Order of calls.* In 2015 the gradients of stochastic layers depended on when the test output
  was built (3).
- *Images never tested.* The released loop drops the images after the last full batch, 32 of
  SVHN's (2).
- *A stack that no longer ran.* Lasagne imports a module that Theano removed, and MNIST's site no
  longer serves the files. Saved weights are real-valued, which users took for an error.

## What would settle the open rows

{open}

`./reproduce sweep` runs what is missing for all these verdicts and skips finished runs. The
CIFAR-10 and SVHN rows need the official files. To see whether shift-based arithmetic costs
accuracy, the Torch7 protocol would also have to be trained without shifts.
"""


def article(findings, pictures):
    """The text of results/article.md.

    Parameters
    ----------
    findings : reproduction.report.findings.Findings
    pictures : dict
        {title: path relative to the page}; the comparison is the first.
    """
    compared, all_claims = findings.compared, claims(findings)
    counts = verdicts(all_claims)
    title, picture = next(iter(pictures.items()))
    stochastic = findings.by_row["mnist", "paper", "stochastic"]
    errors = ", ".join(f"{error:.2f}" for error in stochastic.errors)
    hours = sum(map(cpu_hours, [*findings.runs, *findings.tuned]))
    return TEXT.format(
        made=MADE,
        runs=len(findings.runs),
        rows=len(compared),
        claims="\n".join(f"{i}. {c.statement} ({c.place})" for i, c in enumerate(all_claims, 1)),
        statements=counts.total(),
        counted=counted(counts),
        confidence=CONFIDENCE,
        margin=MARGIN,
        enough=ENOUGH_RUNS,
        judged=verdicts_of(compared),
        tables=_tables(compared),
        title=title,
        picture=picture,
        verdicts=_verdicts(all_claims),
        costs=f"All runs, those that chose hyperparameters included, took {hours:.0f} CPU hours.",
        stochastic=f"{errors} % by seed" if errors else "not yet run",
        open=_open(compared, findings.epochs),
    )


def _tables(compared):
    """The rows that have runs in the published setting, and the rows that have runs on unofficial
    data."""
    judged = [c for c in compared if c.runs]
    parts = []
    for dataset, name in NAMES.items():
        if of_data := [c for c in judged if c.row[0] == dataset]:
            parts += [f"{name}, test errors in percent:", comparison_table(of_data)]
    if unofficial := unofficial_table(compared):
        parts.append(unofficial)
    return "\n\n".join(parts or ["No row has been run in its published setting yet."])


def _verdicts(all_claims):
    given = [verdict for verdict in VERDICTS if verdicts(all_claims)[verdict]]
    lines = [
        [claim.title, *(verdicts([claim])[verdict] or "" for verdict in given)]
        for claim in all_claims
    ]
    return table(["claim", *given], lines)


def _open(compared, epochs):
    """The rows without a verdict, with the number of runs that each lacks and the time of a run."""
    groups = defaultdict(list)
    for c in compared:
        if c.verdict not in ("reproduced", "consistent", "differs", "not judged"):
            seconds, threads, _ = time_of_a_run(c, epochs)
            time = f"{duration(seconds)}, {threads_of(threads)}" if seconds else "not measured"
            lacking = max(0, c.enough - len(c.runs)) or "more"
            groups[NAMES[c.row[0]], c.verdict, lacking, time].append(c.name)
    lines = [[name, "; ".join(rows), *others] for (name, *others), rows in groups.items()]
    header = ["data set", "rows", "now", "runs that each lacks", "time of a run"]
    return table(header, lines) if lines else "Every row has its verdict."
