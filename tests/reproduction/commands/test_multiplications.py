import dataclasses
import json

import original_stack

import pytest

import mnist
from reproduction.commands import multiplications
from reproduction.report import findings

LAST = 1024 * 10


def convolutional(f):
    """Counts of the first layer and of the others. The first layer has f filters and 32x32
    positions, later ones 16x16 and 8x8; 4x4 positions remain for the dense layers."""
    first = 3 * f * 9 * 32 * 32
    convolutions = f * f * 9 * 1024 + (f * 2 * f + 4 * f * f) * 9 * 256
    convolutions += (2 * f * 4 * f + 16 * f * f) * 9 * 64
    return first, convolutions + 4 * f * 16 * 1024 + 1024 * 1024 + LAST


@pytest.mark.parametrize(
    ("name", "first", "others", "activations"),
    [
        ("mnist", 784 * 1024, 2 * 1024 * 1024 + LAST, 3 * 1024 + 10),
        (
            "cifar10",
            *convolutional(128),
            128 * (1024 + 256) + 256 * (256 + 64) + 512 * (64 + 16) + 2 * 1024 + 10,
        ),
        (
            "svhn",
            *convolutional(64),
            64 * (1024 + 256) + 128 * (256 + 64) + 256 * (64 + 16) + 2 * 1024 + 10,
        ),
    ],
)
def test_counts_of_the_networks(name, first, others, activations):
    counted = multiplications.count(*multiplications.NETWORKS[name])
    assert counted == {
        ("forward", True): first + others,
        ("backward", True): others,
        ("weight gradient", False): first + others,
        ("test", True): first + others,
        ("test, element-wise", False): activations,
    }
    removed = 100 * (first + 2 * others) / (2 * first + 3 * others)
    training, test = multiplications.shares(counted)
    assert (training, test) == (pytest.approx(removed), 100)


def test_the_command_writes_a_record(tmp_path, monkeypatch, capsys):
    hp = dataclasses.replace(mnist.PAPER, method="deterministic", num_units=5)
    networks = {"mnist": (hp, mnist.build_network)}
    monkeypatch.setattr(multiplications, "NETWORKS", networks)
    monkeypatch.setattr(original_stack, "RESULTS", tmp_path / "results")
    assert multiplications.main([]) == 0
    record = json.loads((tmp_path / "results" / "multiplications.json").read_text())
    first, others = 784 * 5, 2 * 25 + 50
    share = 100 * (first + 2 * others) / (2 * first + 3 * others)
    assert record == {
        "mnist": {
            "training": pytest.approx(share),
            "test": 100.0,
            "parts": {
                "forward": {"binary": first + others, "other": 0},
                "backward": {"binary": others, "other": 0},
                "weight gradient": {"binary": 0, "other": first + others},
                "test": {"binary": first + others, "other": 0},
                "test, element-wise": {"binary": 0, "other": 3 * 5 + 10},
            },
        }
    }
    assert f"removed in training: {share:.1f}%" in capsys.readouterr().out
    evidence = findings.read(tmp_path / "results", {})
    assert (evidence.multiplications, evidence.notes) == (record, [])


@pytest.mark.parametrize("method", ["none", "deterministic"])
def test_counts_of_other_methods(method):
    hp = dataclasses.replace(mnist.PAPER, method=method, num_units=5)
    counted = multiplications.count(hp, mnist.build_network)
    binary = method == "deterministic"
    assert counted["forward", binary] == counted["test", binary] == 784 * 5 + 2 * 25 + 50
    assert counted["backward", binary] == 2 * 25 + 50
    assert counted["weight gradient", False] == 784 * 5 + 2 * 25 + 50
