import original_stack
from original_stack.errors import UserError

from toy import toy

from reproduction import datasets
from reproduction.commands import quick
from reproduction.training import loop


def test_quick_takes_digits_where_mnist_is_missing(monkeypatch, capsys):
    asked, runs = [], []

    def load(name, **options):
        asked.append((name, options))
        if name == "mnist":
            raise UserError("it is not there")
        return toy()

    def run(dataset, hp, build_network, seed, results):
        runs.append((hp.protocol, hp.method, hp.epochs, hp.num_units))
        return {"test_error": len(runs), "seconds": 10.4}

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setitem(quick.EPOCHS, "toy", 20)
    monkeypatch.setitem(quick.EXPERIMENTS, "toy", quick.EXPERIMENTS["digits"])
    assert quick.main([]) == 0
    assert asked == [("mnist", {"train_size": 10000}), ("digits", {})]
    methods = ["stochastic", "deterministic", "none", "dropout"]
    assert runs == [("paper", method, 20, 512) for method in methods]
    assert capsys.readouterr().out.splitlines() == [
        "no MNIST (it is not there); scikit-learn's handwritten digits instead",
        "",
        *(line for method in methods for line in ("", method)),
        "",
        "toy, 210 training images, 20 epochs, 3 x 512",
        "stochastic     test error  1.00%    10 s",
        "deterministic  test error  2.00%    10 s",
        "none           test error  3.00%    10 s",
        "dropout        test error  4.00%    10 s",
        "Too short to compare with the paper: ./reproduce mnist runs its experiment.",
    ]
