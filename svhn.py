"""Street View House Numbers: CIFAR-10's network with half the filters, on 598,388 training images.

Images are locally normalized for BinaryConnect (section 3.3), but not for Binarized Neural Networks
(section 2.3)."""

import sys
from dataclasses import dataclass, field, replace
from typing import Literal

import cifar10
from reproduction.training import command_line


@dataclass(frozen=True)
class Hyperparameters(cifar10.Hyperparameters):
    """CIFAR-10's hyperparameters, and the preprocessing of SVHN."""

    lcn: Literal["released", "all-channels"] = field(
        default="released",
        metadata={
            "option": {
                "choices": ("released", "all-channels"),
                "help": "local contrast normalization of the first channel only, as in the "
                "released code, or of all channels",
            }
        },
    )

    @property
    def data_options(self):
        return {**super().data_options, "lcn": self.lcn}


PAPER = Hyperparameters(
    protocol="paper",
    method="stochastic",
    epochs=200,
    batch_size=50,
    optimizer="adam",
    LR_start=0.01,
    LR_fin=0.000003,
    H=1.0,
    W_LR_scale="Glorot",
    filters=64,
)
BNN_THEANO = replace(PAPER, protocol="bnn-theano", method="bnn", LR_start=0.001, LR_fin=0.000001)
BNN_TORCH7 = replace(
    BNN_THEANO,
    protocol="bnn-torch7",
    batch_size=200,
    optimizer="shift-based adamax",
    LR_start=2**-10,
    LR_fin=2**-13,
    LR_stages=4,  # halved every 50 epochs
    shift_based=True,
)
ROWS = [
    PAPER,
    replace(PAPER, method="deterministic"),
    replace(PAPER, method="none"),
    BNN_THEANO,
    BNN_TORCH7,
]

if __name__ == "__main__":
    sys.exit(command_line.main("svhn", ROWS, cifar10.build_network))
