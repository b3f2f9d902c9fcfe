import contextlib
import gzip
import io
import os
import struct
import zlib

from original_stack.errors import UserError

import numpy as np
import pytest
from checks import refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reproduction.arrays import npz
from reproduction.deploy.images import KINDS, read_images

GRAY, COLOR = [1, 28, 28], [3, 32, 32]


def idx(images):
    return struct.pack(">iiii", 2051, *images.shape) + images.tobytes()


def random_images(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def png(pixels, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", **options)
    return content.getvalue()


def test_arrays(tmp_path):
    images = random_images(3, 28, 28)
    (tmp_path / "a").write_bytes(idx(images))
    (tmp_path / "b.gz").write_bytes(gzip.compress(idx(images)))
    np.save(tmp_path / "c.npy", images.reshape(3, 784))
    np.savez(tmp_path / "d.npz", images)
    np.save(tmp_path / "e.npy", images[..., np.newaxis])
    np.save(tmp_path / "f.npy", np.asfortranarray(images, np.float64))
    np.savez(tmp_path / "g.npz", train_images=images[:1], test_images=images)
    for name in ("a", "b.gz", "c.npy", "d.npz", "e.npy", "f.npy", "g.npz"):
        names, pixels = read_images([tmp_path / name], GRAY)
        np.testing.assert_array_equal(pixels, images[:, np.newaxis])
        assert names == [(str(tmp_path / name), i) for i in range(3)]


def test_which_array_of_several(tmp_path):
    path = tmp_path / "several.npz"
    np.savez(path, a=np.zeros((1, 784)), b=np.zeros((2, 784)))
    assert refusal(read_images, [path], GRAY) == (
        f"{path} holds 2 arrays; expected one, or test_images among them"
    )


@pytest.mark.parametrize("form", [(3, 32, 32, 3), (3, 3, 1024), (32, 32, 9), (3, 32, 96), ()])
def test_arrays_of_another_layout(tmp_path, form):
    path = tmp_path / "images.npy"
    images = np.zeros((3, 3, 32, 32), np.uint8)
    np.save(path, images)
    assert read_images([path], COLOR)[1].shape == images.shape
    np.save(path, images.reshape(form) if form else images[0, 0, 0, 0])
    assert refusal(read_images, [path], COLOR) == (
        f"{path} holds an array of shape {form}; expected images of 3x32x32 pixels, (n, 3, 32, 32)"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 784)), "holds no image; expected at least one"),
        (np.full((2, 784), 256), "has values from 256 to 256; expected 0 to 255"),
        (np.full((2, 784), -1), "has values from -1 to -1; expected 0 to 255"),
        (np.full((2, 784), np.nan), "has values from nan to nan; expected 0 to 255"),
        (np.full((2, 784), 1j), "has values of type complex128; expected numbers"),
        (np.full((2, 784), "a"), "has values of type <U1; expected numbers"),
        (np.full((2, 784), True), "has values of type bool; expected numbers"),
    ],
)
def test_values_that_are_not_pixels(tmp_path, values, message):
    path = tmp_path / "images.npy"
    np.save(path, values)
    assert refusal(read_images, [path], GRAY) == f"{path} {message}"


def test_an_idx_file_without_images(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">iiii", 2051, 0, 28, 28))
    assert refusal(read_images, [path], GRAY) == f"{path} holds no image; expected at least one"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack(">iiii", 2051, 9, 28, 28), "an array of shape (9, 28, 28) in 16 bytes"),
        (struct.pack(">iiii", 2051, -1, 28, 28), "an array of shape (4294967295, 28, 28) in 16 by"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"x", "1569 bytes for an array of shape (2, 28,"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:12], "unpack requires"),
        (
            gzip.compress(struct.pack(">iiii", 2051, 10**9, 28, 28), mtime=0),
            "an array of shape (100",
        ),
        (gzip.compress(b"x", mtime=0)[:9], "Compressed file ended before the end-of-stream marker"),
        (b"PK\x03\x04", "File is not a zip file"),
        (npz(a=np.zeros(3))[:-30], "File is not a zip file"),
    ],
)
def test_damaged_arrays(tmp_path, content, reason):
    path = tmp_path / "images"
    path.write_bytes(content)
    message = refusal(read_images, [path], GRAY)
    assert message.startswith(f"{path} is damaged ({reason}")
    assert message.endswith(f"); {KINDS}")


def test_a_header_that_claims_more_than_there_is(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (8 * 10**12,)}
    np.lib.format.write_array_header_1_0(header, claim)
    path = tmp_path / "images.npy"
    path.write_bytes(header.getvalue())
    assert refusal(read_images, [path], GRAY) == (
        f"{path} is damaged (an array of shape (8000000000000,) in 128 bytes); {KINDS}"
    )


def test_paths_that_are_not_files(tmp_path):
    path = tmp_path / "images"
    assert refusal(read_images, [path], GRAY) == f"{path} does not exist; name a file of images"
    for content in (b"", b"text"):
        path.write_bytes(content)
        assert refusal(read_images, [path], GRAY) == f"{path} is not an image file; {KINDS}"
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path / "fifo", "/dev/zero"):
        assert refusal(read_images, [other], GRAY) == (
            f"{other} is not a regular file; give the name of a file"
        )
    (tmp_path / "folder").mkdir()
    assert refusal(read_images, [tmp_path / "folder"], GRAY) == (
        f"{tmp_path}/folder holds no picture; expected files .png, .pbm, .pgm, .ppm"
    )


def test_gray_pictures(tmp_path):
    pixels = random_images(28, 28)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.PGM", "PPM")
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(tmp_path / "c.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "d.png")
    text = "\n".join(" ".join(map(str, row)) for row in pixels)
    (tmp_path / "e.pgm").write_text(f"P2\n# a comment\n28 28\n255\n{text}\n")
    (tmp_path / "f.png").write_bytes(gzip.compress(png(pixels)))
    names, images = read_images([tmp_path], GRAY)
    assert names == [
        (f"{tmp_path}/{n}", None) for n in ("a.png", "b.PGM", "c.png", "d.png", "e.pgm", "f.png")
    ]
    np.testing.assert_array_equal(images, np.stack([pixels[np.newaxis]] * 6))


def test_black_and_white_pictures_have_pixels_0_and_255(tmp_path):
    pixels = random_images(28, 28) > 127
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.pbm")
    _, images = read_images([tmp_path], GRAY)
    np.testing.assert_array_equal(images, np.stack([pixels[np.newaxis] * 255] * 2))


def test_color_pictures(tmp_path):
    pixels = random_images(32, 32, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.ppm")
    _, images = read_images([tmp_path / "a.png", tmp_path / "b.ppm"], COLOR)
    np.testing.assert_array_equal(images, np.stack([pixels.transpose(2, 0, 1)] * 2))


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def bomb(width, height):
    """A PNG of so many pixels, all 0."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 1) * min(height, 1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        (
            png(random_images(30, 28)),
            GRAY,
            "has 28x30 pixels; expected 28x28 in gray; resize it first",
        ),
        (
            png(random_images(28, 28)),
            COLOR,
            "has 28x28 pixels; expected 32x32 in color; resize it first",
        ),
        (
            bomb(10**4, 10**4),
            GRAY,
            "has 10000x10000 pixels; expected 28x28 in gray; resize it first",
        ),
        (bomb(10**5, 10**5), GRAY, "has far more pixels; expected 28x28 in gray; resize it first"),
        (png(random_images(28, 28, 3)), GRAY, "has colors; save it in gray"),
        (
            png(random_images(28, 28, 4)),
            GRAY,
            "has transparency or more than 8 bits a pixel (mode RGBA); save it in 8 bits of gray",
        ),
        (
            png(random_images(28, 28).astype(np.uint16)),
            GRAY,
            "has transparency or more than 8 bits a pixel (mode I;16); save it in 8 bits of gray",
        ),
        (
            b"P5 28 28 65535\n" + bytes(2 * 784),
            GRAY,
            "has transparency or more than 8 bits a pixel (mode I); save it in 8 bits of gray",
        ),
    ],
)
def test_pictures_that_are_refused(tmp_path, content, shape, message):
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert refusal(read_images, [path], shape) == f"{path} {message}"


@pytest.mark.parametrize(
    "content", [png(random_images(28, 28))[:200], b"P5 28 28 255\n" + bytes(9), b"P5 x"]
)
def test_damaged_pictures(tmp_path, content):
    path = tmp_path / "picture"
    path.write_bytes(content)
    message = refusal(read_images, [path], GRAY)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith(f"); {KINDS}")


SEEDS = [
    idx(random_images(2, 28, 28)),
    gzip.compress(idx(random_images(2, 28, 28)), mtime=0),
    bytes(npz(images=random_images(2, 784))),
    png(random_images(28, 28)),
    png(random_images(28, 28) // 200 * 99, bits=2),
    b"P5 28 28 255\n" + random_images(784).tobytes(),
    b"P2 28 28 9\n" + b"3 " * 784,
    b"P4 28 28\n" + bytes(4 * 28),
]


@given(data=st.data())
def test_damage_is_a_user_error_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "images"
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    start = data.draw(st.sampled_from([60, len(content)]))  # headers more often
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, start - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    with contextlib.suppress(UserError):
        read_images([path], GRAY)
