"""Street View House Numbers (BinaryConnect, section 3.3): CIFAR-10's network with half the filters,
on 598,388 locally normalized training images."""

import sys
from dataclasses import dataclass, field, replace

import cifar10
import training


@dataclass(frozen=True)
class Hyperparameters(cifar10.Hyperparameters):
    """CIFAR-10's, and the preprocessing of SVHN."""

    lcn: str = field(
        default="released",
        metadata={
            "option": {
                "choices": ("released", "all-channels"),
                "help": "channels that local contrast normalization changes: the first, as in the "
                "released code, or all",
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
ROWS = [PAPER, replace(PAPER, method="deterministic"), replace(PAPER, method="none")]

if __name__ == "__main__":
    sys.exit(training.main("svhn", ROWS, cifar10.build_network))
