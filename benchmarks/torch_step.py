"""The steps of training_step.py in PyTorch, written to be fast: with native batch normalization,
fused optimizers whose learning rates per group do the scaling, and for-each clipping."""

import argparse
import math

import torch
from serve import serve
from torch.nn.functional import batch_norm, conv2d, dropout, max_pool2d, relu

MNIST = [("dense", i, o) for i, o in ((784, 1024), (1024, 1024), (1024, 1024), (1024, 10))]
MNIST_BNN = [("dense", i, o) for i, o in ((784, 4096), (4096, 4096), (4096, 4096), (4096, 10))]
CONVOLUTIONAL = {
    step: [
        ("conv", 3, first),
        ("conv+pool", first, first),
        ("conv", first, 2 * first),
        ("conv+pool", 2 * first, 2 * first),
        ("conv", 2 * first, 4 * first),
        ("conv+pool", 4 * first, 4 * first),
        ("dense", 64 * first, 1024),
        ("dense", 1024, 1024),
        ("dense", 1024, 10),
    ]
    for step, first in (("cifar10", 128), ("svhn", 64), ("cifar10-bnn", 128))
}


class Sign(torch.autograd.Function):
    """Binary activations with the straight-through gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    dense = ["mnist-adam", "mnist-published", "mnist-bnn"]
    parser.add_argument("step", choices=[*dense, *CONVOLUTIONAL])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    adam = args.step != "mnist-published"
    conv = args.step in CONVOLUTIONAL
    bnn = args.step.endswith("-bnn")
    layers = CONVOLUTIONAL.get(args.step, MNIST_BNN if bnn else MNIST)
    drop = (0.2, 0.5) if args.step == "mnist-bnn" else (0, 0)  # shares of inputs and hidden units
    images = torch.channels_last if args.channels_last else torch.contiguous_format

    fans = [(i + o) * (9 if kind != "dense" else 1) for kind, i, o in layers]
    glorots = [math.sqrt(1.5 / fan) for fan in fans]
    Hs = [1.0] * len(layers) if adam else glorots
    Ws = []
    for (kind, i, o), H in zip(layers, Hs, strict=True):
        shape = (i, o) if kind == "dense" else (o, i, 3, 3)
        W = (2 * torch.rand(shape) - 1) * H
        Ws.append(W if kind == "dense" else W.contiguous(memory_format=images))
    biases = [torch.zeros(o, requires_grad=adam) for _, _, o in layers]
    gammas = [torch.ones(o, requires_grad=True) for _, _, o in layers]
    betas = [torch.zeros(o, requires_grad=True) for _, _, o in layers]
    running = [(torch.zeros(o), torch.ones(o)) if adam else (None, None) for _, _, o in layers]
    alpha = 0.1 if conv or bnn else 0.15
    if conv:
        X = torch.randn(50, 3, 32, 32).contiguous(memory_format=images)
    else:
        X = torch.randn(100 if bnn else 200, 784)
    Y = 2 * torch.nn.functional.one_hot(torch.randint(10, (len(X),)), 10).float() - 1

    def binarize():
        return [
            torch.where(
                W >= 0 if bnn else torch.rand_like(W) < ((W / H + 1) / 2).clamp(0, 1), H, -H
            )
            for W, H in zip(Ws, Hs, strict=True)
        ]

    def loss_of(Wbs):
        x = dropout(X, drop[0]) if drop[0] else X
        for i, ((kind, _, _), Wb) in enumerate(zip(layers, Wbs, strict=True)):
            if kind == "dense":
                x = x.flatten(1)
                x = torch.addmm(biases[i], x, Wb) if adam else x @ Wb
            else:
                x = conv2d(x, Wb, biases[i], padding=1)
                if kind == "conv+pool":
                    x = max_pool2d(x, 2)
            x = batch_norm(x, *running[i], gammas[i], betas[i], True, alpha, 1e-4)
            if i < len(layers) - 1:
                x = Sign.apply(x) if bnn else relu(x)
                if drop[1]:
                    x = dropout(x, drop[1])
        hinge = torch.square(torch.clamp(1 - Y * x, min=0))
        return hinge.mean() if adam else hinge.sum(1).mean()

    def clip():
        for W, H in zip(Ws, Hs, strict=True):
            W.clamp_(-H, H)

    if args.compile:
        binarize, loss_of, clip = (torch.compile(f) for f in (binarize, loss_of, clip))
    others = gammas + betas + (biases if adam else [])
    if adam:
        groups = [
            {"params": [W], "lr": 0.001 / glorot} for W, glorot in zip(Ws, glorots, strict=True)
        ]
        optimizer = torch.optim.Adam([*groups, {"params": others}], lr=0.001, fused=True)
    else:
        optimizer = torch.optim.SGD(Ws + others, lr=0.1, fused=True)

    def step():
        with torch.no_grad():
            Wbs = [Wb.requires_grad_() for Wb in binarize()]
        optimizer.zero_grad()
        loss = loss_of(Wbs)
        loss.backward()
        for W, Wb in zip(Ws, Wbs, strict=True):
            W.grad = Wb.grad
        optimizer.step()
        with torch.no_grad():
            clip()
        return loss.item()

    serve(step, version=torch.__version__)


if __name__ == "__main__":
    main()
