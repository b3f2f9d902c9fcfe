"""results/published.csv: the figures of the papers and of the released code, and which deviations
matter to each row that is run here."""

import csv
from functools import cache

import original_stack

PATH = original_stack.ROOT / "results" / "published.csv"


@cache
def rows():
    """All rows, as dicts of str.

    Of a row that is run here, `protocol` and `method` say how, `epochs` how long, and `deviations`
    holds the numbers of DEVIATIONS.md that matter to it, apart by spaces.
    """
    with open(PATH, newline="") as f:
        return tuple(csv.DictReader(f))


def published(dataset, protocol, method):
    """The row of a run, a dict of str, or None if the papers have none."""
    key = dataset, protocol, method
    return next((r for r in rows() if (r["dataset"], r["protocol"], r["method"]) == key), None)
