"""results/claims.md: the claims of the papers, each with the runs or the command that tests it, the
result, and a verdict."""

from collections import Counter
from dataclasses import dataclass

from reproduction import published as papers
from reproduction.report import evidence
from reproduction.report.markdown import MADE, NAMES, table
from reproduction.report.statistics import CONFIDENCE, MARGIN

RULE = """\
A difference is paired by seed if the two rows share at least two seeds. Otherwise the interval is
Welch's, and a row with one run has the binomial variance of its test error.

- *holds*: the {confidence:.0%} interval of the difference lies wholly on the claimed side of zero.
  If the claim is equality or a count, the interval lies within ±{margin:.0%}. If the claim is that
  something is not worse, the upper end of the interval lies within that margin;
- *does not hold*: the interval lies wholly on the other side, or beyond the margin;
- *undecided*: otherwise, or if there are fewer runs than the verdict of a row needs;
- *another machine*: the paper measured on its GPU, and we on the machine named, with other kernels;
  shown, but not judged;
- *unofficial data*, *reduced setting*: there are only such runs; shown, but not judged;
- *not tested*: there is no evidence."""


@dataclass
class Claim:
    """A claim of a paper.

    Attributes
    ----------
    title : str
    place : str
        Where the papers make the claim.
    statement : str
    test : str
        The runs or the command that tests it.
    lines : list of evidence.Line
    """

    title: str
    place: str
    statement: str
    test: str
    lines: list


def claims(findings):
    """All claims, beside the findings.

    Parameters
    ----------
    findings : reproduction.report.findings.Findings

    Returns
    -------
    list of Claim
    """
    rows = findings.by_row
    return [
        Claim(
            "Order of the methods",
            "BinaryConnect, Table 2",
            "Stochastic binary weights give a lower test error than deterministic binary weights, "
            "which give a lower test error than no regularizer. Differences are in percentage "
            "points.",
            "`./reproduce DATA --method METHOD --seed N` of these rows",
            [
                evidence.order(rows, dataset, lower, higher)
                for dataset in NAMES
                for lower, higher in (("stochastic", "deterministic"), ("deterministic", "none"))
            ],
        ),
        Claim(
            "Regularization",
            "BinaryConnect, abstract and Figure 3",
            "Binary weights regularize: the training loss is higher than without a regularizer, "
            "and the test error is not. The training loss is taken from the last epoch.",
            "the same runs",
            [
                evidence.regularization(rows, dataset, method)
                for dataset in NAMES
                for method in ("deterministic", "stochastic")
            ],
        ),
        Claim(
            "Multiplications",
            "BinaryConnect, conclusion",
            "About two thirds of the multiplications of training have a binary operand and become "
            "additions, and all of them at test time with deterministic weights. Batch "
            "normalization is not counted.",
            "`./reproduce multiplications`",
            [
                evidence.multiplications(findings, part, name)
                for part in ("training", "test")
                for name in NAMES
            ],
        ),
        Claim(
            "Memory",
            "BinaryConnect, conclusion; Binarized Neural Networks, section 3.1",
            "Binary weights take at least 16 times less memory than 16-bit floats, and 32 times "
            "less than 32-bit floats.",
            "`./reproduce export RUN_DIR`; `./reproduce benchmark xnor`",
            evidence.memory(findings),
        ),
        Claim(
            "Weights at test time",
            "BinaryConnect, section 2.6",
            "A network trained with sampled weights can be tested with its real weights: they are "
            "not worse than its binary ones, and an average over sampled networks approaches them. "
            "Binary weights have recomputed batch-norm statistics where `evaluate` gives both.",
            "`./reproduce evaluate RUN_DIR` of stochastic runs",
            [line for dataset in NAMES for line in evidence.test_weights(rows, dataset)],
        ),
        Claim(
            "Scaling of the learning rates",
            "BinaryConnect, section 2.5 and Table 1",
            "Scaling the learning rates of binary weights lowers the test error with each "
            "optimizer. The paper does not describe its network; ours is an inference "
            "(`DEVIATIONS.md`, 14).",
            "`./reproduce cifar10 --optimizer O --lr-scaling on|off --seed N`",
            [evidence.scaling(findings, rows, optimizer) for optimizer in evidence.OPTIMIZERS],
        ),
        Claim(
            "Shifts instead of multiplications",
            "Binarized Neural Networks, sections 1.4 and 1.5",
            "Shift-based batch normalization and shift-based AdaMax cost no accuracy.",
            "nothing yet: no command trains a row of protocol bnn-torch7 without shifts",
            [evidence.Line("shift-based against exact arithmetic", "no loss observed")],
        ),
        Claim(
            "Speed of XNOR",
            "Binarized Neural Networks, section 4",
            "Products of binary matrices by XNOR and population count are faster than products of "
            "floats. The paper timed its own kernels on a GPU, a GTX 750.",
            "`./reproduce benchmark xnor` on a CPU, `./reproduce benchmark xnor --opencl` on a GPU",
            evidence.speed(findings),
        ),
        Claim(
            "Repetitions of filters",
            "Binarized Neural Networks, section 3.3, from memory of the paper",
            "Of the binary 3x3 kernels that a layer of the CIFAR-10 network applies to a feature "
            "map, about 42 % are unique, an inverse counting as a repetition; the operations could "
            "fall to a third.",
            "`./reproduce evaluate RUN_DIR` of a run of `./reproduce cifar10 --method bnn`",
            [evidence.repetitions(rows, protocol) for protocol in ("bnn-theano", "bnn-torch7")],
        ),
    ]


def claims_page(findings):
    """The text of results/claims.md."""
    all_claims = claims(findings)
    counts = verdicts(all_claims)
    parts = [
        "# Claims of the papers",
        f"{MADE} {len(findings.runs)} finished runs and the records of commands; no number is "
        f"typed by hand. Of {counts.total()} statements: {counted(counts)}.",
    ]
    for claim in all_claims:
        lines = [
            [line.what, line.published, line.obtained, f"**{line.verdict}**"]
            for line in claim.lines
        ]
        parts += [
            f"## {claim.title}",
            f"{claim.statement} ({claim.place})",
            f"Tested by {claim.test}.",
            table(["", "published", "obtained", "verdict"], lines),
        ]
    parts += ["## How to read", RULE.format(confidence=CONFIDENCE, margin=MARGIN)]
    return "\n\n".join(parts) + "\n"


def verdicts(all_claims):
    """How often each verdict was given, as a Counter."""
    return Counter(line.verdict for claim in all_claims for line in claim.lines)


def counted(counts):
    """The verdicts and how often each was given: "*holds* 3, *undecided* 2"."""
    return ", ".join(
        f"*{verdict}* {counts[verdict]}" for verdict in evidence.VERDICTS if counts[verdict]
    )


def obtained_figures(findings, times):
    """What was obtained for each row of published.csv that is not a test error.

    Parameters
    ----------
    findings : Findings
    times : dict
        {data set: text}, how long a run of the row takes that the released code trains.

    Returns
    -------
    dict
        {(label, data set): text}
    """
    lines_of = {claim.title: claim.lines for claim in claims(findings)}
    counts = {
        part: ", ".join(
            f"{NAMES[name]} {shares[part]:.1f}"
            for name, shares in findings.multiplications.items()
            if name in NAMES
        )
        for part in ("training", "test")
    }
    sixteen, _, network = lines_of["Memory"]
    texts = {
        "training": counts["training"],
        "test time": counts["test"],
        "weights": sixteen.obtained,
        "weights and": network.obtained,
        "XNOR kernel against an": lines_of["Speed of XNOR"][0].obtained,
        "XNOR kernel against c": lines_of["Speed of XNOR"][1].obtained,
        "multilayer": lines_of["Speed of XNOR"][2].obtained,
        "unique": "; ".join(
            line.obtained for line in lines_of["Repetitions of filters"] if line.obtained
        ),
    }
    figures = {}
    for row in papers.rows():
        if row["quantity"] == "training time (hours)":
            figures[row["label"], row["dataset"]] = times.get(row["dataset"], "")
        elif row["quantity"] != "test error (%)":
            starts = [start for start in texts if row["label"].startswith(start)]
            figures[row["label"], row["dataset"]] = texts[max(starts, key=len)] if starts else ""
    return figures
