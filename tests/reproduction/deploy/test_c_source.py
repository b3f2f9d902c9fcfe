"""Networks as C give the same scores as the networks they are made from, without warnings."""

import json
import re
import shutil
import struct
import subprocess

from original_stack import ROOT

import formats
import numpy as np
import pytest
from checks import refusal

from reproduction.deploy import bnn_network, c_source, predict
from reproduction.deploy.network import Network

COMPILERS = [compiler for compiler in ("gcc", "clang") if shutil.which(compiler)]


def bnn(image, shapes, pools):
    return bnn_network.Network(*formats.random_bnn(image, shapes, pools))


def floats(shapes):
    return Network(*formats.random_floats([1, 28, 28], shapes, [False] * len(shapes)))


NETWORKS = {
    "floats": lambda: floats([[784, 37], [37, 65], [65, 10]]),
    "dense": lambda: bnn([1, 28, 28], [[784, 37], [37, 64], [64, 10]], [False] * 3),
    "one layer": lambda: bnn([1, 5, 5], [[25, 10]], [False]),
    "convolutions": lambda: bnn(  # 11 x 9, then 5 x 4, then 2 x 2: odd borders are ignored
        [3, 11, 9],
        [[5, 3, 3, 3], [70, 5, 3, 3], [19, 70, 3, 3], [76, 67], [67, 10]],
        [False, True, True, False, False],
    ),
    "nine places": lambda: bnn(  # a dense layer of 3 x 3 places is not a convolution
        [3, 6, 6], [[33, 3, 3, 3], [297, 10]], [True, False]
    ),
}


def pixels_of(network, n=40):
    shape = (n, *network.manifest["image"])
    return np.random.RandomState(2).randint(0, 256, shape).astype(np.uint8)


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def test_scores(tmp_path, network):
    pixels = pixels_of(network)
    expected = network.outputs(pixels)
    assert len(set(expected.argmax(axis=1))) > 1
    line = c_source.write(tmp_path / "new", network, pixels)
    path = tmp_path / "new/mnist_p_1_m.c"
    scores = c_source.scores_of(path, network, pixels)
    if network.manifest["format"] == "bnn":
        assert scores.tobytes() == expected.tobytes()
        assert line == f"{path}: scores equal, bit for bit: 40 of 40 test images"
    else:
        largest = np.abs(scores - expected).max()
        assert largest < 1e-5 * np.abs(expected).max()
        assert line == (
            f"{path}: scores differ by at most {largest:.1e}, classes equal: 40 of 40 test images"
        )


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_program_without_warnings_or_undefined_behavior(tmp_path, network, compiler):
    for name, text in c_source.sources(network, "net").items():
        (tmp_path / name).write_text(text)
    warnings = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Dnet_MAIN"]
    program = tmp_path / "net"
    subprocess.run(
        [compiler, *warnings, *checks, "-O1", tmp_path / "net.c", "-o", program], check=True
    )

    pixels = pixels_of(network)
    sizes = network.manifest["image"] if len(pixels[0]) > 1 else network.manifest["image"][1:]
    magic = 2048 + len(sizes) + 1
    header = struct.pack(f">{2 + len(sizes)}I", magic, len(pixels), *sizes)
    (tmp_path / "idx").write_bytes(header + pixels.tobytes())
    (tmp_path / "raw").write_bytes(pixels.tobytes())
    classes = "".join(f"{label}\n" for label in network.predict(pixels))
    for file in ("idx", "raw"):
        ran = subprocess.run([program, tmp_path / file], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, classes, "")

    (tmp_path / "cut").write_bytes(pixels.tobytes()[:-1])
    ran = subprocess.run([program, tmp_path / "cut"], capture_output=True, text=True)
    size = pixels[0].size
    message = f"{tmp_path}/cut: the last image has {size - 1} of {size} bytes\n"
    assert (ran.returncode, ran.stderr) == (2, message)
    ran = subprocess.run([program, tmp_path / "missing"], capture_output=True, text=True)
    usage = f"usage: {program} FILE, of {size} bytes an image or IDX; it must be readable\n"
    assert (ran.returncode, ran.stderr) == (2, usage)


def test_population_count_without_the_compiler_s_own(tmp_path):
    network = NETWORKS["dense"]()
    pixels = pixels_of(network)
    text = c_source.sources(network, "net")
    (tmp_path / "net.h").write_text(text["net.h"])
    (tmp_path / "net.c").write_text(text["net.c"].replace("__GNUC__", "A_COMPILER_WITH_ITS_OWN"))
    scores = c_source.scores_of(tmp_path / "net.c", network, pixels)
    assert scores.tobytes() == network.outputs(pixels).tobytes()


def test_bnn_has_no_floating_point():
    text = "".join(c_source.sources(NETWORKS["convolutions"](), "net").values())
    code = [line for line in text.splitlines() if not line.lstrip().startswith("/*")]
    assert not any("float" in line or "double" in line for line in code)


def test_classes_of_equal_scores_are_the_first(tmp_path):
    """-0 equals 0, and negative scores are ordered as numbers, not as their bits."""
    manifest, arrays = formats.exported_bnn()
    manifest.update(formats.NAME)
    arrays["gamma"] = np.zeros(10, np.float32)
    for beta, best in (
        ([-0.0, 0, -1, -2, 0, 0, 0, 0, 0, 0], 0),
        ([-3, -2, -1, -1, -4, -5, -6, -7, -8, -9], 2),
        ([-3, 1, 2, 2, -4, -5, -6, -7, -8, 0], 2),
    ):
        arrays["beta"] = np.float32(beta)
        network = bnn_network.Network(manifest, arrays)
        for name, text in c_source.sources(network, "net").items():
            (tmp_path / name).write_text(text)
        image = np.zeros((1, 1, 28, 28), np.uint8)
        assert network.predict(image) == [best]
        (tmp_path / "raw").write_bytes(image.tobytes())
        command = ["gcc", "-std=c99", "-Dnet_MAIN", tmp_path / "net.c", "-o", tmp_path / "net"]
        subprocess.run(command, check=True)
        ran = subprocess.run([tmp_path / "net", tmp_path / "raw"], capture_output=True, text=True)
        assert ran.stdout == f"{best}\n"


def test_counts_of_the_head():
    manifest, arrays = formats.exported_bnn()
    network = bnn_network.Network({**manifest, **formats.NAME}, arrays)
    scores, weights = 10 * 66 * 4, 65 * 25 * 4 + 10 * 3 * 4
    assert c_source.sources(network, "net")["net.c"].splitlines()[:10] == [
        "/* net, seed 1: test error 1.23%.",
        "   For an image:",
        f"            {784 * 65:,} additions and subtractions of pixels",
        "                30 exclusive ors and population counts of 32 bits",
        "                65 comparisons with thresholds",
        "                 0 multiplications",
        "   Bytes:",
        f"             {scores + weights + 4 * (65 + 3):,} of constants",
        "                64 of buffers on the stack",
        "   A program that classifies a file: cc -std=c99 -O2 -Dnet_MAIN net.c -o classify */",
    ]


def test_counts_of_convolutions_leave_the_border_out():
    image = [3, 6, 6]  # each axis has 16 pairs of a position and a tap inside
    network = bnn(image, [[33, 3, 3, 3], [4, 33, 3, 3], [4, 10]], [True, True, False])
    head = c_source.sources(network, "net")["net.c"].split("*/")[0]
    counts = [int(line.split()[0].replace(",", "")) for line in head.splitlines()[2:6]]
    # 3 x 3 positions remain, of which 2 x 2 are pooled: 5 pairs along each axis
    popcounts = 4 * 2 * 5 * 5 + 10 * 1
    assert counts == [33 * 3 * 16 * 16, popcounts, 33 * 9 + 4, 0]


def test_networks_that_are_refused():
    network = NETWORKS["floats"]()
    network.manifest["layers"][0]["packed"] = False
    assert refusal(c_source.sources, network, "net") == (
        "method m has no binary weights to write as C; export a run of BinaryConnect or of method "
        "bnn"
    )
    network.manifest["preprocessing"] = "whitened"
    assert refusal(c_source.sources, network, "net") == (
        "C cannot be written for images that are whitened; export a run on MNIST or of method bnn"
    )


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    network = NETWORKS["dense"]()
    assert refusal(c_source.write, tmp_path / "file", network, pixels_of(network)) == (
        f"cannot write {tmp_path}/file/mnist_p_1_m.c: File exists; make it writable or make room"
    )


def test_figures_of_the_readme():
    """README gives the figures of the network in git."""
    path = ROOT / "results/mnist/paper-stochastic/seed-1/deployed.npz"
    head = c_source.sources(predict.load(path), "net")["net.c"].split("*/")[0]
    (error,) = re.findall(r"test error ([0-9.]+)%", head)
    numbers = {
        what: n for n, what in re.findall(r"([0-9,]+) (additions|multi|divisions|of const)", head)
    }
    figures = (
        f"The network of the first command: test error {error} %, {path.stat().st_size:,} bytes; "
        f"in C, which needs only the standard library, {numbers['of const']} bytes of constants, "
        f"and for an image {numbers['additions']} additions and subtractions, {numbers['multi']} "
        f"multiplications and {numbers['divisions']} divisions."
    )
    assert figures in " ".join((ROOT / "README.md").read_text().split())
