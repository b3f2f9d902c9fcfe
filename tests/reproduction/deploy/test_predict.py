"""Files of ./reproduce export are read without trust, and the command runs them."""

import contextlib
import os
from pathlib import Path

import original_stack
from original_stack.errors import UserError

import formats
import numpy as np
import pytest
from checks import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reproduction.deploy import predict

SIZES = "weights: 31,360 bytes as float32, 980 here, 32.0 times less\n"


@pytest.fixture
def file(tmp_path):
    return formats.exported(tmp_path / "file.npz", *formats.exported_floats())


def predicted(*arguments):
    return predict.main([str(argument) for argument in arguments])


def test_classes_of_an_array(tmp_path, capsys, file):
    images = np.zeros((3, 784))
    images[1, 5] = 255
    np.save(tmp_path / "images.npy", images)
    assert predicted(file, tmp_path / "images.npy") == 0
    assert capsys.readouterr() == ("9\n8\n9\n", SIZES)


def test_classes_of_a_network_of_binary_activations(tmp_path, capsys):
    path = formats.exported(tmp_path / "file.npz", *formats.exported_bnn())
    np.save(tmp_path / "images.npy", np.zeros((3, 784)))
    assert predicted(path, tmp_path / "images.npy") == 0
    sizes = "weights: 206,440 bytes as float32, 6,464 here, 31.9 times less\n"
    assert capsys.readouterr() == ("9\n9\n9\n", sizes)


def test_pictures_are_named(tmp_path, capsys, file):
    pixels = np.zeros((28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "a.pgm")
    np.save(tmp_path / "c.npy", np.stack([pixels, pixels]))
    (tmp_path / "no picture.txt").write_text("text")
    expected = (
        f"{tmp_path}/a.pgm 8\n{tmp_path}/b.png 9\n{tmp_path}/c.npy[0] 8\n{tmp_path}/c.npy[1] 8\n"
    )
    assert predicted(file, tmp_path, tmp_path / "c.npy") == 0
    assert capsys.readouterr().out == expected
    assert predicted(file, tmp_path / "b.png") == 0
    assert capsys.readouterr().out == f"{tmp_path}/b.png 9\n"
    assert predicted(file, tmp_path / "b.png", "--invert") == 0  # 784 pixels of 1: 2 * -784 + 9
    assert capsys.readouterr().out == f"{tmp_path}/b.png 8\n"


def test_scores_and_table(tmp_path, capsys, file):
    images = np.zeros((2, 1, 28, 28), np.uint8)
    images[1, 0, 3, 4] = 255
    np.save(tmp_path / "images.npy", images)
    table = tmp_path / "table.csv"
    assert predicted(file, tmp_path / "images.npy", "--scores", "--output", table) == 0
    lines = ["9 0 1 2 3 4 5 6 7 8 9", "8 2 -1 4 1 6 3 8 5 10 7"]
    assert capsys.readouterr().out.splitlines() == lines
    assert table.read_text().splitlines() == [
        "file,image,class,score0,score1,score2,score3,score4,score5,score6,score7,score8,score9",
        f"{tmp_path}/images.npy,0,9,0,1,2,3,4,5,6,7,8,9",
        f"{tmp_path}/images.npy,1,8,2,-1,4,1,6,3,8,5,10,7",
    ]
    assert predicted(file, tmp_path / "images.npy", "--output", table) == 0
    assert table.read_text().splitlines()[0] == "file,image,class"


def test_values_from_0_to_1_need_a_scale(tmp_path, capsys, file):
    path = tmp_path / "images.npy"
    for dtype in (np.uint8, np.float32, np.float64):
        images = np.zeros((2, 784), dtype)
        images[0, 3] = 1
        np.save(path, images)
        assert predicted(file, path) == 2
        assert capsys.readouterr().err == (
            f"predict: {path} has values from 0 to 1, expected pixels from 0 to 255; give --scale "
            "255 if 1 is white, or --scale 1 if these are pixels\n"
        )
        assert predicted(file, path, "--scale", 255) == 0
        assert capsys.readouterr().out == "8\n9\n"
        assert predicted(file, path, "--scale", 1) == 0
        assert capsys.readouterr().out == "9\n9\n"
    np.save(path, 2 * images)
    assert predicted(file, path, "--scale", 200) == 2
    assert capsys.readouterr().err == (
        f"predict: {path} has values from 0 to 400; expected 0 to 255\n"
    )


def test_output_that_is_not_a_file(tmp_path, capsys, file):
    os.mkfifo(tmp_path / "fifo")
    assert predicted(file, "images.npy", "--output", tmp_path / "fifo") == 2
    assert capsys.readouterr().err == (
        f"predict: {tmp_path}/fifo is not a regular file; give --output another name\n"
    )


def test_full_disk_leaves_the_table_that_was_there(tmp_path, capsys, monkeypatch, file):
    np.save(tmp_path / "images.npy", np.zeros((3, 784)))
    table = tmp_path / "table.csv"
    table.write_text("what was there")

    def fsync(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert predicted(file, tmp_path / "images.npy", "--output", table) == 2
    assert capsys.readouterr().err == (
        f"predict: cannot write {table}: No space left on device; make it writable or make room\n"
    )
    assert table.read_text() == "what was there"


DAMAGED = "expected a file of ./reproduce export, make it again from its run"


def test_damaged_files(monkeypatch, file):
    content = file.read_bytes()
    for damage in (b"", b"text", content[:1000], content[:200] + b"\xff" * 80 + content[280:]):
        file.write_bytes(damage)
        message = refusal(predict.load, file)
        assert message.startswith(f"{file} is damaged (")
        assert message.endswith(f"); {DAMAGED}")
    monkeypatch.setattr(predict, "LARGEST", 10**6)
    np.savez_compressed(file, manifest="{}", weights0=np.zeros(10**6 + 1, np.uint8))
    assert refusal(predict.load, file) == (
        f"{file} is damaged (more than 1000000 bytes); {DAMAGED}"
    )
    np.savez(file, manifest=np.array([{}]))  # a pickle
    assert refusal(predict.load, file) == (
        f"{file} is damaged (an array of type '|O'; expected numbers or text); {DAMAGED}"
    )
    file.unlink()
    assert refusal(predict.load, file) == (
        f"{file} does not exist; ./reproduce export RUN_DIR makes such files"
    )


def test_paths_that_are_not_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        assert refusal(predict.load, path) == (
            f"{path} is not a regular file; give the name of a file"
        )


def test_other_version(tmp_path):
    for manifest, arrays in (formats.exported_floats(), formats.exported_bnn()):
        path = formats.exported(tmp_path / "file.npz", {**manifest, "version": 2}, arrays)
        assert refusal(predict.load, path) == (
            f"{path} is of version 2, this program reads 1; export the run again"
        )


def test_another_file_of_arrays(tmp_path):
    np.savez(tmp_path / "model.npz", a=np.zeros(3))
    assert refusal(predict.load, tmp_path / "model.npz") == (
        f"{tmp_path}/model.npz holds no exported network; ./reproduce export RUN_DIR makes such "
        "files"
    )


@pytest.mark.parametrize("make", [formats.exported_floats, formats.exported_bnn])
@settings(deadline=None)
@given(data=st.data())
def test_damage_is_a_user_error_at_most(tmp_path_factory, make, data):
    """Bytes of the file, or a value anywhere in its manifest, are replaced."""
    path = tmp_path_factory.mktemp("damage") / "file.npz"
    manifest, arrays = make()
    value = st.none() | st.booleans() | st.integers() | st.floats(-10, 10) | st.text(max_size=3)
    value |= st.lists(st.integers(-1, 1000), max_size=4)
    if data.draw(st.booleans()):
        place = data.draw(st.sampled_from([manifest, *manifest["layers"]]))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(value)
        formats.exported(path, manifest, arrays)
    else:
        content = bytearray(formats.exported(path, manifest, arrays).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        predict.load(path)


@pytest.mark.parametrize(
    ("run", "error", "image"),
    [
        ("mnist/paper-stochastic/seed-1", 1.19, (1, 28, 28)),
        ("mnist/paper-deterministic/seed-1", 1.22, (1, 28, 28)),
        ("reduced/cifar10/bnn-theano-bnn/seed-1", 19.97, (3, 32, 32)),
    ],
)
def test_exported_networks_in_results(run, error, image):
    network = predict.load(original_stack.ROOT / "results" / run / "deployed.npz")
    assert network.manifest["test_error"] == pytest.approx(error)
    images = np.random.RandomState(0).randint(0, 256, (20, *image)).astype(np.uint8)
    assert network.outputs(images).shape == (20, 10)
