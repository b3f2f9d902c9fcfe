"""Devices of OpenCL, GPUs and processors, and the kernels of xnor.cl on one of them.

pyopencl is in requirements-opencl.lock, with PoCL, an OpenCL for processors. It is imported when a
device is asked for, not before.
"""

import contextlib
import os
import re
import warnings
from pathlib import Path

from original_stack import machine
from original_stack.cache import cache_directory
from original_stack.errors import UserError, write_atomically, writing

import numpy as np

TILE = 64  # the same as in xnor.cl
GROUP = 16
LISTS = "./reproduce devices lists the devices"


def devices():
    """All devices that build kernels, GPUs before others; `opencl:N` is number N of them.

    Returns
    -------
    list of pyopencl.Device

    Raises
    ------
    UserError
        If pyopencl is not installed, or if there is no device.
    """
    cl = pyopencl()
    accessible, unknown = [], []
    with contextlib.suppress(cl.Error):  # no platform
        for platform in cl.get_platforms():
            with contextlib.suppress(cl.Error):  # a driver without its device
                for device in platform.get_devices():
                    (unknown if _is_unknown_to_pocl(device) else accessible).append(device)
    if not accessible and unknown:
        version = unknown[0].driver_version.strip()
        raise UserError(
            f"OpenCL finds no device that works: PoCL {version} does not know this processor and "
            "builds nothing for it; install a newer PoCL, or the OpenCL of the GPU's driver"
        )
    if not accessible:
        raise UserError(
            "OpenCL finds no device; install the OpenCL of the GPU's driver, or of the processor "
            "(Debian, Ubuntu: apt-get install pocl-opencl-icd)"
        )
    return sorted(accessible, key=lambda device: not device.type & cl.device_type.GPU)


def _is_unknown_to_pocl(device):
    """Whether this is a processor newer than PoCL's compiler.

    PoCL calls such a processor "generic", which its compiler refuses as the name of an x86-64
    processor (PoCL's issue 1049): 3.0 does so on AMD's Zen 5.
    """
    return re.search(r"pthread-x86_64\S*-generic$", device.version.strip()) is not None


def pyopencl():
    """The module.

    Raises
    ------
    UserError
        If it is not installed.
    """
    # pyopencl's own caches are not needed, because drivers keep compiled kernels.
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
    os.environ.setdefault("POCL_CACHE_DIR", str(cache_directory() / "pocl"))
    os.environ.setdefault("POCL_MAX_PTHREAD_COUNT", str(machine.threads()))
    try:
        import pyopencl
        import pyopencl.array
    except ImportError as error:
        raise UserError(
            f"OpenCL needs pyopencl ({error}); ./reproduce devices installs it"
        ) from None
    return pyopencl


def description(device):
    """Name, kind, memory and driver of a pyopencl.Device, in one line."""
    is_cpu = device.type & pyopencl().device_type.CPU
    kind = "GPU" if is_gpu(device) else "CPU" if is_cpu else "other"
    return (
        f"{device.name.strip()} ({kind}, {device.global_mem_size / 2**30:.1f} GiB; "
        f"{device.platform.name.strip()}, {device.version.strip()}, driver "
        f"{device.driver_version.strip()})"
    )


def is_gpu(device):
    return bool(device.type & pyopencl().device_type.GPU)


class Device:
    """A device with the kernels of xnor.cl.

    Methods take and return arrays on the device (pyopencl.array.Array). A row of bits is an even
    number of uint32 words.

    Parameters
    ----------
    number : int
        The number of the device in `devices()`.

    Raises
    ------
    UserError
        If there is no such device, or if the kernels do not build on it. `failures` turns the
        errors of operations into UserErrors.

    Attributes
    ----------
    device : pyopencl.Device
    memory : int
        The number of bytes that the arrays for one part of a set may take.
    NoMemory : type
        The error that an operation raises if memory is lacking.
    """

    def __init__(self, number=0):
        available = devices()
        if number >= len(available):
            raise UserError(f"there is no device opencl:{number}; {LISTS}")
        self._cl = pyopencl()
        self.NoMemory = self._cl.MemoryError
        self.device = available[number]
        self.name = f"opencl:{number} ({self.device.name.strip()})"
        # Parts of a quarter of a gigabyte keep a GPU busy.
        most = self.device.global_mem_size // 4
        self.memory = min(2**28, most, self.device.max_mem_alloc_size)
        with self.failures():
            context = self._cl.Context([self.device])
            self.queue = self._cl.CommandQueue(context)
            self._kernels = {kernel.function_name: kernel for kernel in self._build(context)}

    def _build(self, context):
        source = Path(__file__).with_name("xnor.cl")
        program = self._cl.Program(context, source.read_text())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._cl.CompilerWarning)
                return program.build().all_kernels()
        except self._cl.RuntimeError as error:
            path = cache_directory() / "opencl-build.log"
            with writing(path, "make room or name another directory: BINARYCONNECT_CACHE=DIR"):
                write_atomically(path, str(error).encode())
            log = str(error).partition("\n")[2]
            lines = [line.strip() for line in log.splitlines() if line.strip()]
            first = next((line for line in lines if "error" in line), (lines or [str(error)])[0])
            raise UserError(
                f"{source.name} does not build on {self.name}: {first}; the whole log is in {path}"
            ) from None

    @contextlib.contextmanager
    def failures(self):
        """A context in which a failure of the device becomes a UserError."""
        try:
            yield
        except self._cl.MemoryError as error:
            raise UserError(
                f"{self.name} has too little memory ({_reason(error)}); close other programs that "
                f"use it, or choose another device: {LISTS}"
            ) from None
        except self._cl.Error as error:
            raise UserError(
                f"{self.name} failed ({_reason(error)}); run the command again, or choose another "
                f"device: {LISTS}"
            ) from None

    def put(self, array):
        """A NumPy array on the device."""
        return self._cl.array.to_device(self.queue, np.ascontiguousarray(array))

    def empty(self, shape, dtype):
        """A new array on the device, without values."""
        return self._cl.array.empty(self.queue, shape, dtype)

    def _run(self, kernel, size, group, *arguments):
        """Start a kernel over `size`, (last axis, the axis before), in whole groups."""
        size = [-(-n // g) * g for n, g in zip(size, group or (1, 1), strict=True)]
        arguments = [
            np.int32(argument) if isinstance(argument, int) else argument.data
            for argument in arguments
        ]
        self._kernels[kernel](self.queue, size, group, *arguments)

    def plain_product(self, a, b):
        """a b for float32 (rows, depth) and (depth, units), by the unoptimized kernel."""
        return self._float_product("plain_product", a, b, 1)

    def tiled_product(self, a, b):
        """The same, by the tiled kernel."""
        return self._float_product("tiled_product", a, b, TILE // GROUP)

    def _float_product(self, kernel, a, b, each):
        (rows, depth), units = a.shape, b.shape[1]
        c = self.empty((rows, units), np.float32)
        size = (-(-units // each), -(-rows // each))
        self._run(kernel, size, (GROUP, GROUP), a, b, rows, depth, units, c)
        return c

    def signs(self, x, thresholds, negative):
        """The activations for the sums `x`, float32 (rows, units), in place; see `xnor_bits`."""
        self._run("signs", x.shape[::-1], None, x, x.shape[1], thresholds, negative)

    def pack(self, x, columns=False):
        """The signs of the rows or columns of float32 `x` as bits; zero counts as +1."""
        rows, n = x.shape[::-1] if columns else x.shape
        of_row, of_bit = (1, rows) if columns else (n, 1)
        bits = self.empty((rows, _words(n)), np.uint32)
        self._run("pack", bits.shape[::-1], None, x, n, of_row, of_bit, bits.shape[1], bits)
        return bits

    def planes(self, pixels, taps):
        """The bit planes of uint8 `pixels` (n, channels, rows, columns), of each pixel, or of its
        patch of 9 `taps`: bits (n rows columns, 8, words)."""
        n, channels, height, width = pixels.shape
        bits = self.empty((n * height * width, 8, _words(taps * channels)), np.uint32)
        size = (bits.shape[2], bits.shape[0])
        self._run("planes", size, None, pixels, channels, height, width, taps, bits.shape[2], bits)
        return bits

    def patches(self, bits, height, width):
        """The patches of 3x3 of bits (places, words)."""
        places, words = bits.shape
        rows = self.empty((places, 9 * words), np.uint32)
        self._run("patches", rows.shape[::-1], None, bits, height, width, words, rows)
        return rows

    def xnor_sums(self, rows, weights, base, height=0, width=0):
        """The products of +-1 as int32 (n, units).

        Parameters
        ----------
        rows : bits (n, words) or (n, planes, words)
        weights : bits (units, words)
        base : int32 (1, units), or of a convolution (16, units)
            The sums if no bit differs, for each kind of edge; see xnor.cl.
        height, width : int
            Of the images of a convolution, whose places are the rows.
        """
        sums = self.empty((len(rows), len(weights)), np.int32)
        self._product("xnor_sums", rows, weights, base, height, width, sums)
        return sums

    def xnor_bits(self, rows, weights, base, thresholds, negative, height=0, width=0):
        """The bits (sums >= thresholds) xor negative, (n, words of units), of the same sums.

        Parameters
        ----------
        thresholds : int32 (units,)
        negative : bits (words of units,)
        """
        bits = self.empty((len(rows), _words(len(weights))), np.uint32)
        self._product("xnor_bits", rows, weights, base, height, width, thresholds, negative, bits)
        return bits

    def _product(self, kernel, rows, weights, base, height, width, *others):
        n, *planes, words = rows.shape
        units = len(weights)
        size = [-(-m // TILE) * GROUP for m in (units, n)]
        scalars = (n, units, *(planes or [1]), words, height, width)
        self._run(kernel, size, (GROUP, GROUP), rows, weights, base, *scalars, *others)

    def pool(self, bits, negative, height, width):
        """2x2 maxima of bits (places, words) of images of height x width; see xnor.cl."""
        places, words = bits.shape
        n = places // (height * width)
        pooled = self.empty((n * (height // 2) * (width // 2), words), np.uint32)
        self._run("pool", pooled.shape[::-1], None, bits, negative, height, width, words, pooled)
        return pooled


def _words(n):
    """Number of 32-bit words in a row of n bits."""
    return 2 * -(-n // 64)


def _reason(error):
    """The first line of an error of pyopencl."""
    return str(error).partition("\n")[0]
