"""Read results/published.csv: the results of the papers and of the released code, and which
deviations matter to each row that this project runs."""

import csv
from functools import cache

import original_stack

PATH = original_stack.ROOT / "results" / "published.csv"


@cache
def rows():
    """All rows, as dicts of str.

    A row that this project runs has a `protocol`, a `method` and a number of `epochs`. Its
    `deviations` are the numbers of the entries of DEVIATIONS.md that matter to it, separated by
    spaces.
    """
    with open(PATH, newline="") as f:
        return tuple(csv.DictReader(f))


def published(dataset, protocol, method):
    """The row of a run, as a dict of str, or None if the papers have no such row."""
    key = dataset, protocol, method
    return next((r for r in rows() if (r["dataset"], r["protocol"], r["method"]) == key), None)
