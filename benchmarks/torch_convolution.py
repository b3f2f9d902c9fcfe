"""The convolutions of convolution.py in PyTorch."""

import argparse
import json

import torch
from serve import serve
from torch.nn.functional import conv2d


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--layers", type=json.loads, required=True)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    order = torch.channels_last if args.channels_last else torch.contiguous_format

    layers = []
    for channels, filters, size in args.layers:
        x = torch.randn(args.batch, channels, size, size).contiguous(memory_format=order)
        w = torch.randn(filters, channels, 3, 3).sign().contiguous(memory_format=order)
        dy = torch.randn(args.batch, filters, size, size).contiguous(memory_format=order)
        layers.append((x.requires_grad_(channels != 3), w.requires_grad_(), dy))

    def step():
        for x, w, dy in layers:
            x.grad = w.grad = None
            conv2d(x, w, padding=1).backward(dy)

    serve(step, version=torch.__version__)


if __name__ == "__main__":
    main()
