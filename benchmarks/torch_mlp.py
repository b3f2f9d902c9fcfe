"""MNIST's binarized network in PyTorch: products of +-1 are in float32, and batch normalization is
one multiplication and one addition."""

import argparse

import torch
from serve import serve
from torch.nn.functional import linear


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--of", type=int, required=True, help="images of the task")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = [784, args.units, args.units, args.units, 10]
    layers = [
        (torch.randn(o, i).sign(), torch.randn(o) / i**0.5, torch.randn(o))
        for i, o in zip(sizes, sizes[1:], strict=False)
    ]
    inputs = torch.randint(0, 256, (args.images, 784)).float() * 2 - 255

    @torch.inference_mode()
    def step():
        x = inputs
        for i, (W, scale, shift) in enumerate(layers):
            x = torch.addcmul(shift, linear(x, W), scale)
            if i < len(layers) - 1:
                x = torch.where(x >= 0, 1.0, -1.0)
        return x

    serve(step, least=1, part=args.images / args.of, version=torch.__version__)


if __name__ == "__main__":
    main()
