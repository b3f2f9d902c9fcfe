import dataclasses
import json
from pathlib import Path

import original_stack
from original_stack.errors import UserError

import pytest

from reproduction import datasets
from reproduction.commands import tune
from reproduction.training import loop


@pytest.fixture
def tuned(monkeypatch):
    """tuned(name): the (hyperparameters, folder) that the command trains."""

    def of(name):
        runs = []

        def run(dataset, hp, build_network, seed, results):
            assert seed == 1234
            runs.append((hp, Path(results)))
            if len(runs) == 1:
                raise UserError("the loss is nan")
            return {"valid_error": len(runs)}

        monkeypatch.setattr(datasets, "load", lambda *args, **options: None)
        monkeypatch.setattr(loop, "run", run)
        monkeypatch.setattr(original_stack, "RESULTS", original_stack.ROOT / "results")
        assert tune.main([name]) == 0
        return runs

    return of


@pytest.mark.parametrize(("name", "number"), [("mnist", 14), ("cifar10", 20)])
def test_grid_is_the_one_on_record(tuned, capsys, name, number):
    runs = tuned(name)
    lines = capsys.readouterr().out.splitlines()
    assert len(runs) == len(lines) == number
    assert lines[0].endswith("the loss is nan")
    assert lines[1].endswith("validation error 2.00%")
    for hp, folder in runs:
        path = folder / name / f"{hp.protocol}-{hp.method}" / "seed-1234" / "run.json"
        recorded = json.loads(path.read_text())["hyperparameters"]
        ours = dataclasses.asdict(hp)
        assert {key: ours[key] for key in recorded} == recorded
