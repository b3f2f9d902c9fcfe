"""The progress of a run, which its checkpoint keeps."""

import math
from dataclasses import dataclass, field

from reproduction.training.environment import process
from reproduction.training.records import Best, Count, EarlierEnvironment, Environment, Row, Seconds


@dataclass
class Progress:
    """The progress of a run.

    Attributes
    ----------
    started : str
        Date and time at which the run began.
    environment : dict
        The environment in which it runs now.
    epoch : int
        Number of epochs done.
    seconds : float
        Duration of training so far, summed over all processes of the run.
    rows : list of dict
        One for each evaluation, see `records.Row`.
    best : dict
        best_epoch, and the valid_error and test_error of that epoch in percent.
    earlier : list of dict
        Previous environments of the run, each with its last epoch, `until_epoch`.
    """

    started: str
    environment: Environment
    epoch: Count = 0
    seconds: Seconds = 0.0
    rows: list[Row] = field(default_factory=list)
    best: Best = field(default_factory=lambda: dict.fromkeys(Best.__annotations__))
    earlier: list[EarlierEnvironment] = field(default_factory=list)

    def note(self, row, seconds):
        """Note an epoch that ended `seconds` after the run began; keep its row if evaluated."""
        self.epoch, self.seconds = row["epoch"], seconds
        row["seconds"] = round(seconds, 1)
        if row["valid_error"] is not None:
            self.rows.append(row)

    def is_best(self, valid_error):
        """Whether no evaluation so far had a lower validation error. The later epoch wins a tie."""
        return valid_error <= min((row["valid_error"] for row in self.rows), default=math.inf)

    def select(self, row, test_error):
        """Note that the epoch of a row is the best so far."""
        best = row["epoch"], row["valid_error"], test_error
        self.best = dict(zip(Best.__annotations__, best, strict=True))

    def move_to(self, environment):
        """Continue in an environment, which may differ from the previous one."""
        last = self.earlier[-1]["until_epoch"] if self.earlier else 0
        if self.environment != environment and self.epoch > last:
            self.earlier.append({"until_epoch": self.epoch, **self.environment})
        self.environment = environment

    def record(self, finished=False, **more):
        """The part of run.json that changes."""
        return {
            "epochs_done": self.epoch,
            "finished": finished,
            **self.best,
            "started": self.started,
            "seconds": round(self.seconds, 1),
            **process(),
            **self.environment,
            "earlier": self.earlier,
            **more,
        }


@dataclass
class Snapshot:
    """The state of a model after an epoch, and its parameters at the best epoch: {name: array}."""

    state: dict
    best: dict

    def arrays(self):
        """All arrays in one dict."""
        return {**self.state, **{f"best_{name}": array for name, array in self.best.items()}}

    def fits(self, arrays):
        """Whether `arrays` have the names, shapes and types of the arrays here."""

        def forms(arrays):
            return {name: (array.shape, array.dtype) for name, array in arrays.items()}

        return forms(arrays) == forms(self.arrays())

    def restore(self, arrays):
        """Set the arrays to what the method `arrays` returned."""
        self.state = {name: arrays[name] for name in self.state}
        self.best = {name: arrays[f"best_{name}"] for name in self.best}
