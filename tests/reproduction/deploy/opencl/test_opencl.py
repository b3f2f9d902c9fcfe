"""The kernels of xnor.cl equal products of integers by NumPy; faults of devices are reported."""

import os
import re
import subprocess
import sys
from importlib import metadata

import original_stack
from original_stack import ROOT
from original_stack.errors import UserError

import numpy as np
import pytest
from checks import opencl_error, refusal
from packaging.requirements import Requirement

from reproduction.commands import devices
from reproduction.deploy import opencl

# (rows, depth, units): one of each, within a tile, on its edges and beyond.
SIZES = [(1, 1, 1), (3, 5, 7), (64, 64, 64), (65, 63, 129), (130, 257, 66), (2, 700, 1)]
LISTS = "./reproduce devices lists the devices"


@pytest.fixture
def cl():
    """pyopencl, also where there is no device."""
    pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    return opencl.pyopencl()


def signs(random, *shape):
    return random.choice([-1, 1], shape).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_products(opencl_device, size):
    rows, depth, units = size
    random = np.random.RandomState(rows)
    a, b = signs(random, rows, depth), signs(random, depth, units)
    expected = a.astype(int) @ b.astype(int)
    x, w = opencl_device.put(a), opencl_device.put(b)
    np.testing.assert_array_equal(opencl_device.plain_product(x, w).get(), expected)
    np.testing.assert_array_equal(opencl_device.tiled_product(x, w).get(), expected)

    x, w = opencl_device.pack(x), opencl_device.pack(w, columns=True)
    base = opencl_device.put(np.full((1, units), depth, np.int32))
    sums = opencl_device.xnor_sums(x, w, base).get()
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, expected)

    thresholds = random.randint(-9, 10, units).astype(np.int32)
    below = random.randint(0, 2, units).astype(bool)
    negative = opencl_device.put(words(below[np.newaxis])[0])
    thresholds_there = opencl_device.put(thresholds)
    bits = opencl_device.xnor_bits(x, w, base, thresholds_there, negative).get()
    activations = (expected >= thresholds) ^ below
    np.testing.assert_array_equal(bits, words(activations))
    floats = opencl_device.put(expected.astype(np.float32))
    opencl_device.signs(floats, thresholds_there, negative)
    np.testing.assert_array_equal(floats.get(), 2 * activations - 1)


def words(bits):
    """Booleans (rows, n) as rows of an even number of words of 32 bits."""
    rows, n = bits.shape
    padded = np.zeros((rows, -(-n // 64) * 64), bool)
    padded[:, :n] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 65, 200])
def test_packing(opencl_device, n):
    x = np.random.RandomState(n).choice([-1.5, -0.0, 0.0, 2.0], (5, n)).astype(np.float32)
    rows = opencl_device.pack(opencl_device.put(x))
    np.testing.assert_array_equal(rows.get(), words(x >= 0))
    columns = opencl_device.pack(opencl_device.put(x.T), columns=True)
    np.testing.assert_array_equal(columns.get(), words(x >= 0))


def test_planes_of_pixels(opencl_device):
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64, 1, 1)
    planes = opencl_device.planes(opencl_device.put(pixels), 1).get()
    assert planes.shape == (4, 8, 2)
    for plane in range(8):
        np.testing.assert_array_equal(
            planes[:, plane], words((pixels.reshape(4, 64) >> plane & 1).astype(bool))
        )


def test_packages_have_what_they_need(cl):
    """They are installed without their dependencies, which requirements.lock has."""
    names = {
        lock: re.findall(r"^([a-z][\w.-]*)==", (ROOT / lock).read_text(), re.MULTILINE)
        for lock in ("requirements.lock", "requirements-opencl.lock")
    }
    added = names["requirements-opencl.lock"]
    assert {"pyopencl", "pytools"} <= set(added)
    assert not set(added) & set(names["requirements.lock"])
    for name in added:
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert metadata.version(requirement.name) in requirement.specifier, name


def test_devices(opencl_device, capsys):
    assert devices.main([]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"opencl:0  {opencl.description(opencl_device.device)}"
    assert opencl_device.device.name.strip() in first
    number = len(opencl.devices())
    assert refusal(opencl.Device, number) == f"there is no device opencl:{number}; {LISTS}"


class Listed:
    """A device of this kind in a platform's list."""

    driver_version = "3.0-rc2"

    def __init__(self, kind, version="OpenCL 3.0"):
        self.type = kind
        self.version = version


class Platform:
    def __init__(self, devices):
        self.get_devices = lambda: devices


class Broken:
    def get_devices(self):
        raise opencl_error("OUT_OF_HOST_MEMORY", "clGetDeviceIDs")


def test_gpus_come_first_and_broken_drivers_are_left_out(cl, monkeypatch):
    kinds = [cl.device_type.CPU, cl.device_type.GPU, cl.device_type.ACCELERATOR]
    platforms = [Broken(), Platform([Listed(kind) for kind in kinds])]
    monkeypatch.setattr(cl, "get_platforms", lambda: platforms)
    assert [device.type for device in opencl.devices()] == [kinds[1], kinds[0], kinds[2]]
    assert [opencl.is_gpu(device) for device in opencl.devices()] == [True, False, False]


def test_a_processor_that_pocl_does_not_know_is_left_out(cl, monkeypatch):
    pocl = "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-"
    unknown = Listed(cl.device_type.CPU, pocl + "generic ")
    known = Listed(cl.device_type.CPU, pocl + "znver3")
    monkeypatch.setattr(cl, "get_platforms", lambda: [Platform([unknown, known])])
    assert opencl.devices() == [known]
    monkeypatch.setattr(cl, "get_platforms", lambda: [Platform([unknown])])
    assert refusal(opencl.devices) == (
        "OpenCL finds no device that works: PoCL 3.0-rc2 does not know this processor and builds "
        "nothing for it; install a newer PoCL, or the OpenCL of the GPU's driver"
    )


def command(code, **environment):
    """The exit status and errors of ./reproduce devices after `code` has run."""
    code += "; import sys; from reproduction.commands import devices; sys.exit(devices.main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_without_pyopencl():
    status, errors = command("import sys; sys.modules['pyopencl'] = None")
    assert status == 2
    assert errors.startswith("devices: OpenCL needs pyopencl (")
    assert errors.endswith("); ./reproduce devices installs it\n")
    assert errors.count("\n") == 1


def test_without_a_platform(cl, tmp_path):
    assert command("import original_stack", OCL_ICD_VENDORS=str(tmp_path / "none")) == (
        2,
        "devices: OpenCL finds no device; install the OpenCL of the GPU's driver, or of the "
        "processor (Debian, Ubuntu: apt-get install pocl-opencl-icd)\n",
    )


def test_a_kernel_that_does_not_build(opencl_device, tmp_path, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path))
    monkeypatch.setenv("PYOPENCL_BUILD_OPTIONS", "-Dplain_product=1")
    message = refusal(opencl.Device)
    log = tmp_path / "opencl-build.log"
    assert message.startswith(f"xnor.cl does not build on {opencl_device.name}: ")
    assert message.endswith(f"; the whole log is in {log}")
    assert ": error: " in message
    assert message.count("error") == 1 < log.read_text().count("\n")


def failing(status):
    """A kernel or an allocation that fails with this status."""

    def fail(*_):
        raise opencl_error(status, "clEnqueueNDRangeKernel")

    return fail


def test_a_lost_device(opencl_device, monkeypatch):
    lost = failing("DEVICE_NOT_AVAILABLE")
    monkeypatch.setitem(opencl_device._kernels, "pack", lost)
    x = opencl_device.put(np.ones((1, 1), np.float32))
    with pytest.raises(UserError) as raised, opencl_device.failures():
        opencl_device.pack(x)
    assert str(raised.value) == (
        f"{opencl_device.name} failed (clEnqueueNDRangeKernel failed: DEVICE_NOT_AVAILABLE); run "
        f"the command again, or choose another device: {LISTS}"
    )


def test_a_device_without_memory(opencl_device, monkeypatch):
    full = failing("OUT_OF_RESOURCES")
    monkeypatch.setattr(opencl_device, "empty", full)
    x = opencl_device.put(np.ones((1, 1), np.float32))
    with pytest.raises(UserError) as raised, opencl_device.failures():
        opencl_device.pack(x)
    assert str(raised.value) == (
        f"{opencl_device.name} has too little memory (clEnqueueNDRangeKernel failed: "
        f"OUT_OF_RESOURCES); close other programs that use it, or choose another device: {LISTS}"
    )
