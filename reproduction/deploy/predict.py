"""Predict the classes of images with a network that ./reproduce export made."""

import argparse
import csv
import io
import json
import os
import sys

from original_stack.command_line import Parser, file, number_between, run
from original_stack.errors import UserError, reading, write_atomically, writing

from reproduction.arrays import load_npz
from reproduction.deploy import network
from reproduction.deploy.images import read_images

LARGEST = 2**30  # bytes of all arrays in a file; guards against archives that unpack to more
REMEDY = "expected a file of ./reproduce export, make it again from its run"


def load(path, device=None):
    """The network in a file.

    Parameters
    ----------
    path : path
    device : int or None
        The number of the OpenCL device on which it runs, see `reproduction.deploy.opencl`. None
        means this processor.

    Returns
    -------
    network.Network, bnn_network.Network or opencl.network.Network

    Raises
    ------
    UserError
        If the file cannot be read, is damaged, hostile, or of another version. With a device, also
        if the network has float activations, or if the device cannot be used.
    """
    try:
        with reading(path, REMEDY):
            arrays = load_npz(path, REMEDY, LARGEST)
            if "manifest" not in arrays:
                raise UserError(
                    f"{path} holds no exported network; ./reproduce export RUN_DIR makes such files"
                )
            manifest = json.loads(str(arrays.pop("manifest")))
            module = _module(manifest["format"])
            version = manifest["version"]
            network.need(type(version) is int, "version")
            if version == module.VERSION:
                module.check(manifest, arrays)
                if device is None:
                    return module.Network(manifest, arrays)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; ./reproduce export RUN_DIR makes such files"
        ) from None
    if version != module.VERSION:
        raise UserError(
            f"{path} is of version {version}, this program reads {module.VERSION}; export the run "
            "again"
        )
    if module is network:
        raise UserError(
            f"{path} is a network of float activations; --device is for networks of method bnn, "
            "omit it"
        )
    from reproduction.deploy import opencl
    from reproduction.deploy.opencl.network import Network

    return Network(manifest, arrays, opencl.Device(device))


def _module(name):
    """The module of a format."""
    if name == "bnn":
        from reproduction.deploy import bnn_network  # loads Theano, which the other does not need

        return bnn_network
    network.need(name == "binaryconnect", "format")
    return network


def predict(options):
    """The command: prints the class of each image, and the sizes to standard error."""
    output = options.output
    if output is not None and os.path.lexists(output) and not os.path.isfile(output):
        raise UserError(f"{output} is not a regular file; give --output another name")
    deployed = load(options.file, options.device)
    names, images = read_images(options.images, deployed.manifest["image"], options.scale)
    outputs = deployed.outputs(255 - images if options.invert else images)
    classes = outputs.argmax(axis=1)
    # One file of arrays needs no names.
    named = names[0][1] is None or names[0][0] != names[-1][0]
    table = []
    for (path, i), scores, label in zip(names, outputs, classes, strict=True):
        path = os.fsencode(path).decode(errors="replace")
        scores = [f"{score:.9g}" for score in scores] if options.scores else []
        table.append([path, "" if i is None else i, label, *scores])
        name = [path if i is None else f"{path}[{i}]"] if named else []
        print(*name, label, *scores)
    if output is not None:
        header = ["file", "image", "class"]
        if options.scores:
            header += [f"score{i}" for i in range(outputs.shape[1])]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *table])
        with writing(output, "make it writable or make room"):
            write_atomically(output, text.getvalue().encode())
    print(describe_sizes(deployed), file=sys.stderr)


def describe_sizes(deployed):
    """Sizes of the weights, in one line."""
    whole, stored = deployed.sizes()
    return f"weights: {whole:,} bytes as float32, {stored:,} here, {whole / stored:.1f} times less"


def _device(text):
    """Argument type for argparse: the number of an OpenCL device."""
    name, colon, number = text.partition(":")
    if name != "opencl" or (colon and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither opencl nor opencl:NUMBER")
    return int(number or 0)


def main(argv=None):
    parser = Parser(prog="predict", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="made by ./reproduce export")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="raw pixels, 0 to 255: .npy, .npz (its test_images, or its only array) or IDX "
        "(.gz), PNG or PGM, or a folder of pictures",
    )
    parser.add_argument(
        "--scale",
        type=number_between(1e-6, 255),
        metavar="FACTOR",
        help="factor from values of arrays to pixels: 255 if values are from 0 to 1",
    )
    parser.add_argument("--invert", action="store_true", help="for dark digits on light ground")
    parser.add_argument("--scores", action="store_true", help="print the score of each class too")
    parser.add_argument(
        "--output", metavar="CSV", type=file, help="also write a table to this file"
    )
    parser.add_argument(
        "--device",
        type=_device,
        metavar="opencl[:N]",
        help="run a network of method bnn on this device of ./reproduce devices (0 if not given)",
    )
    return run(parser, predict, argv)


if __name__ == "__main__":
    sys.exit(main())
