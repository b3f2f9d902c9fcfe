import original_stack

import pytest


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(original_stack.ROOT / "benchmarks")
    import kernels

    return kernels


def test_every_kernel_runs(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "BATCH", 8)
    monkeypatch.setattr(kernels, "UNITS", 64)
    monkeypatch.setattr(kernels, "IMAGES", 1)
    monkeypatch.setattr(kernels, "CHANNELS", 32)
    monkeypatch.setenv("BINARYCONNECT_XNOR", "plain")
    monkeypatch.setattr(kernels, "ROUNDS", 2)
    clock = kernels.chain()
    for kernel in kernels.kernels():
        record = kernels.time_kernel(*kernel, clock)
        assert record["products_a_cycle"] > 0
        assert all(0.1 < ghz < 20 for ghz in record["gigahertz"])


def test_chain_multiplies(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "CHAIN", 5)
    assert kernels.chain()()[1] == 3**5


def test_table(kernels):
    record = {
        "kernels": [
            {
                "name": "counts",
                "source": "counted.h",
                "task": "2 x 3 x 4",
                "bound": 64,
                "products_a_cycle": 16.04,
                "milliseconds": [1.0, 2.0, 30.0],
                "gigahertz": [2.0, 3.0, 4.0],
            }
        ],
        "machine": {"processor": "A Processor"},
    }
    assert kernels.block(record).splitlines() == [
        "| kernel | source | task | ms | multiply-adds a cycle | bound | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| counts | counted.h | 2 x 3 x 4 | 2 | 16.0 | 64 | 25% |",
        "",
        "A Processor, one thread, 3.00 GHz as measured.",
    ]
