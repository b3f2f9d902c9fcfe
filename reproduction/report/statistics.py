"""Judge an obtained error against a published one: intervals, differences and verdicts."""

import math
import statistics
from collections import Counter, defaultdict

import scipy.stats

from reproduction import published as papers
from reproduction.report.markdown import NAMES

CONFIDENCE = 0.95
ENOUGH_RUNS = 3  # if the published figure is a mean over several runs, or too uncertain
TEST_IMAGES = {"mnist": 10_000, "cifar10": 10_000, "svhn": 26_032}  # of the published errors
MARGIN = 0.15  # of the published error
POWER = 0.8  # nominal; in simulations, it is .75 with 3 seeds and .79 with 10
RULE = """\
Error rates are test errors in percent, at the epoch of the lowest validation error. The interval of
an obtained error is Student's t over the seeds. For one seed it is the Clopper-Pearson interval of
its test images.

A row is judged by the {confidence:.0%} interval of the difference between the obtained mean and the
published figure. The interval is Welch's, from the variance over the seeds on either side. For a
side with one run only, it takes the binomial variance of its test error instead.

- *not enough runs*: there are fewer than {enough} runs and the published figure is a mean over
  several or too uncertain, or the interval includes zero but reaches beyond ±{margin:.0%} of the
  published error;
- *differs*: the interval excludes zero;
- *consistent*: the interval includes zero and reaches beyond the margin, and no number of runs here
  can change that. The published figure is too uncertain: it is the error of one run, whose interval
  alone is wider than the margin ({uncertain});
- *reproduced*: otherwise, so the interval lies within the margin. This is an equivalence test: two
  one-sided tests, each at {side:.1%}, reject a difference of {margin:.0%} or more to either side;
- *not judged*: the paper gives no figure, or does not describe the network (its Table 1);
- *unofficial data*: the runs have the published setting, but their data files are not the official
  ones. Such runs are listed separately, with their difference, and never judged;
- *reduced setting*: every run of the row departs from the published setting in its size, length or
  another hyperparameter. Such runs are listed separately and never judged;
- *missing*: there is no run.

The margin is a choice. It is below the effect that BinaryConnect claims for CIFAR-10, where
stochastic binary weights remove {effect:.0%} of the error, and above the binomial standard
deviation of an error on MNIST, which is {deviation:.0%} of the error. It does not distinguish
neighboring rows of MNIST.

All runs of a data set, ours and the published ones, are tested on the same images. The part of an
error that is due to the choice of images is common to all runs, and an interval over seeds does not
include it. Each interval is for one row: if all {judged} rows that can be judged were reproduced,
{differing:.1f} of them would be expected to differ by chance.

The table gives differences in percentage points that at least three of four experiments would show
if our errors had the same spread as the published ones:"""
SEEDS = (3, 6, 10)


def rule():
    """`RULE` with its numbers."""
    none, stochastic = (
        float(papers.published("cifar10", "paper", method)["value"])
        for method in ("none", "stochastic")
    )
    error, variance, _ = _moments(
        [float(papers.published("mnist", "paper", "none")["value"])], TEST_IMAGES["mnist"]
    )
    judged = sum(map(_can_be_judged, papers.rows()))
    return RULE.format(
        confidence=CONFIDENCE,
        side=(1 - CONFIDENCE) / 2,
        enough=ENOUGH_RUNS,
        margin=MARGIN,
        effect=1 - stochastic / none,
        deviation=math.sqrt(variance) / error,
        uncertain="; ".join(
            f"{NAMES[c.row[0]]}, {c.name}" for c in comparisons([]) if _too_uncertain(c.published)
        ),
        judged=judged,
        differing=judged * (1 - CONFIDENCE),
    )


def _can_be_judged(published):
    """Whether a row of published.csv is the error of a network that the paper describes."""
    protocol, value = published["protocol"], published["value"]
    return bool(protocol and value) and not protocol.startswith("table1-")


def comparisons(runs):
    """The published test errors, each with the runs of its row.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    list of Comparison
        In the order of published.csv.
    """
    of_row = defaultdict(list)
    for run in runs:
        of_row[run.row].append(run)
    return [
        Comparison(row, of_row[row["dataset"], row["protocol"], row["method"]])
        for row in papers.rows()
        if row["quantity"] == "test error (%)" and row["protocol"]
    ]


class Comparison:
    """A row of published.csv beside the runs of that row.

    Parameters
    ----------
    published : dict
    runs : list of reproduction.report.runs.Run
        All runs of the row.

    Attributes
    ----------
    name : str
        The name of the row, unique within its data set.
    runs : list of Run
        The runs that are comparable with the published error, by seed.
    unofficial : list of Run
        The runs that would be comparable if their data were official, by seed.
    others : list of Run
        The runs in other settings.
    errors : list of float
        Test errors of `runs`, in percent.
    interval, difference : tuple of float or None
        See the functions of that name; None without runs, or without a published error.
    verdict : str
        See `verdict`; if no run is comparable, "unofficial data" or "reduced setting".
    """

    def __init__(self, published, runs):
        self.published = published
        self.name = published["label"] + ", release" * (published["protocol"] == "release")
        runs = sorted(runs, key=lambda run: run["seed"])
        self.runs = [run for run in runs if not run.departures]
        self.unofficial = [run for run in runs if run.only_data_departs]
        self.others = [run for run in runs if run.departures and not run.only_data_departs]
        self.errors = [run["test_error"] for run in self.runs]
        images = self.runs[0]["test_images"] if self.runs else 0
        self.verdict = verdict(self.errors, images, published)
        if self.verdict == "missing" and self.unofficial:
            self.verdict = "unofficial data"
        elif self.verdict == "missing" and self.others:
            self.verdict = "reduced setting"
        self.interval = interval(self.errors, images) if self.runs else None
        judged = self.runs and published["value"]
        self.difference = difference(self.errors, images, published) if judged else None

    @property
    def row(self):
        """The data set, protocol and method of the row."""
        return tuple(self.published[key] for key in ("dataset", "protocol", "method"))

    @property
    def enough(self):
        """The smallest number of runs that gives a verdict."""
        return enough_runs(self.published)


def verdicts_of(compared):
    """The verdicts of rows and how often each was given: "*missing* 13, *reproduced* 2"."""
    counts = Counter(c.verdict for c in compared)
    return ", ".join(f"*{verdict}* {number}" for verdict, number in sorted(counts.items()))


def enough_runs(published):
    """The smallest number of runs that gives a verdict for a row of published.csv."""
    if _too_uncertain(published):
        return ENOUGH_RUNS
    return min(ENOUGH_RUNS, int(published["runs"] or 1))


def _too_uncertain(published):
    """Whether no mean, however precise, would lie within the margin of a published error."""
    if not published["value"]:
        return False
    value = float(published["value"])
    _, half = _welch((value, 0, math.inf), _published_moments(published))
    return half > MARGIN * value


def interval(errors, images):
    """95% interval of an obtained error.

    Parameters
    ----------
    errors : list of float
        In percent, one per seed.
    images : int
        Number of test images.

    Returns
    -------
    low, high : float
        In percent. Student's t over several seeds, or for one seed Clopper-Pearson's binomial
        interval.
    """
    if len(errors) == 1:
        wrong = scipy.stats.binomtest(round(errors[0] / 100 * images), images)
        share = wrong.proportion_ci(CONFIDENCE, method="exact")
        return 100 * share.low, 100 * share.high
    mean, variance, df = _moments(errors, images)
    half = math.sqrt(variance) * scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df)
    return mean - half, mean + half


def _moments(errors, images):
    """The mean, the variance of the mean, and the degrees of freedom of the variance."""
    mean = statistics.mean(errors)
    if len(errors) == 1:
        return mean, mean * (100 - mean) / images, math.inf
    return mean, statistics.variance(errors) / len(errors), len(errors) - 1


def difference(errors, images, published):
    """The difference between the mean of `errors` and a published error, and half its interval.

    Parameters
    ----------
    errors : list of float
    images : int
    published : dict
        A row of published.csv.

    Returns
    -------
    difference, half : float
        In percentage points; Welch's interval (see `RULE`).
    """
    return _welch(_moments(errors, images), _published_moments(published))


def _published_moments(published):
    """`_moments` of a published error."""
    value, runs = float(published["value"]), int(published["runs"] or 1)
    if runs > 1 and published["spread"]:
        return value, float(published["spread"]) ** 2 / runs, runs - 1
    return _moments([value], TEST_IMAGES[published["dataset"]])


def _welch(ours, theirs):
    """Difference and half its interval from the `_moments` of both sides."""
    (mean, variance, df), (their_mean, their_variance, their_df) = ours, theirs
    total = variance + their_variance
    spread = variance**2 / df + their_variance**2 / their_df
    degrees = total**2 / spread if spread else math.inf
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * math.sqrt(total)
    return mean - their_mean, half


def paired(first, second):
    """Mean difference of two quantities over the seeds that they share, and half its 95% interval.

    Parameters
    ----------
    first, second : dict
        {seed: float}

    Returns
    -------
    difference : float or None
        None if no seed is shared.
    half : float or None
        Student's t over the seeds; None if only one is shared.
    seeds : int
        How many seeds are shared.
    """
    differences = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    if len(differences) < 2:
        return (*differences, None, 1) if differences else (None, None, 0)
    mean, variance, df = _moments(differences, None)
    return mean, scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df) * math.sqrt(variance), len(differences)


def difference_of_errors(first, second, images):
    """Difference of two mean test errors of runs here, and half its 95% interval.

    Parameters
    ----------
    first, second : dict
        {seed: error in percent}
    images : int
        Number of test images.

    Returns
    -------
    difference, half : float
        In percentage points: `paired` if at least two seeds are shared, otherwise Welch's (see
        `RULE`).
    pairs : int
        How many seeds are paired; 0 if the interval is Welch's.
    """
    delta, half, pairs = paired(first, second)
    if half is not None:
        return delta, half, pairs
    ours, theirs = (_moments([*errors.values()], images) for errors in (first, second))
    return (*_welch(ours, theirs), 0)


def verdict(errors, images, published):
    """The verdict on a row of published.csv by `RULE`.

    Returns
    -------
    str
        "reproduced", "consistent", "differs", "not enough runs", "not judged" or "missing".
    """
    if not errors:
        return "missing"
    if not _can_be_judged(published):
        return "not judged"
    if len(errors) < enough_runs(published):
        return "not enough runs"
    delta, half = difference(errors, images, published)
    if abs(delta) > half:
        return "differs"
    if abs(delta) + half <= MARGIN * float(published["value"]):
        return "reproduced"
    return "consistent" if _too_uncertain(published) else "not enough runs"


def visible(published, seeds):
    """The difference that a number of seeds shows with probability `POWER`, if their errors have
    the same spread as the published ones.

    Parameters
    ----------
    published : dict
        A row of published.csv with a spread.
    seeds : int
        At least 2.

    Returns
    -------
    float
        In percentage points: (t(.975) + t(.8)) standard errors of Welch's difference.
    """
    spread, runs = float(published["spread"]), int(published["runs"])
    ours, theirs = spread**2 / seeds, spread**2 / runs
    df = (ours + theirs) ** 2 / (ours**2 / (seeds - 1) + theirs**2 / (runs - 1))
    factor = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df) + scipy.stats.t.ppf(POWER, df)
    return factor * math.sqrt(ours + theirs)
