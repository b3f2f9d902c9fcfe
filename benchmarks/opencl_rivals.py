"""The rivals of `benchmark xnor --opencl` on one device: the products of xnor.cl and of CLBlast.

If the device is a processor, float kernels do only a part of the large tasks.
"""

import ctypes

import original_stack
from original_stack.errors import UserError

import numpy as np

from reproduction.deploy import bnn_network, opencl, predict

OPERATIONS = 2**30  # the part of a task that a float kernel does on a processor, in whole tiles
RIVALS = {
    "xnor, OpenCL": "xnor",
    "xnor, after packing floats": "packing",
    "CLBlast sgemm": "clblast",
    "tiled float kernel": "tiled",
    "plain float kernel": "plain",
}


def rivals_of(task):
    """{name: name on the command line} of the rivals that can do a task on this machine."""
    lacking = {"packing"} if task == "network" else set()
    try:
        CLBlast.library()
    except OSError:
        lacking.add("clblast")
    return {name: rival for name, rival in RIVALS.items() if rival not in lacking}


def product(rival, random_bits, number, checked):
    """A function that multiplies on device `number`, the share of the rows that it multiplies, and
    the first `checked` rows of the result.

    Parameters
    ----------
    rival : str
        A value of RIVALS.
    random_bits : two arrays of 0 and 1, (rows, depth) and (units, depth)
    """
    device = opencl.Device(number)
    a, b = (2 * np.float32(x) - 1 for x in random_bits)
    (rows, depth), units = a.shape, len(b)
    if rival not in ("xnor", "packing"):
        taken = _part(device, rows, depth * units)
        a, b = device.put(a[:taken]), device.put(b.T)
        multiply = _float_product(rival, device)
        step = _finished(device, lambda: multiply(a, b))
        return step, taken / rows, _first(multiply(a, b), checked)
    a, b = device.put(a), device.put(b.T)
    base = device.put(np.full((1, units), depth, np.int32))
    bits = device.pack(a), device.pack(b, columns=True)

    def step():
        if rival == "xnor":
            return device.xnor_sums(*bits, base)
        return device.xnor_sums(device.pack(a), device.pack(b, columns=True), base)

    return _finished(device, step), 1, _first(step(), checked)


def network(rival, pixels, path, number, checked):
    """Like `product`, for the outputs of the network in the file `path`. Pixels are in main memory;
    float kernels take them as floats."""
    packed = predict.load(path, number)
    if rival == "xnor":
        return lambda: packed.outputs(pixels), 1, packed.outputs(pixels)[:checked].tolist()
    device, arrays = packed.device, packed.arrays
    multiply = _float_product(rival, device)
    layers, operations = [], 0
    for i, layer in enumerate(packed.manifest["layers"]):
        W = bnn_network.unpack(arrays[f"weights{i}"], layer["shape"])
        operations += W.size
        of_units = None
        if f"threshold{i}" in arrays:
            negative = arrays[f"negative{i}"].view(np.uint32)
            of_units = device.put(arrays[f"threshold{i}"]), device.put(negative)
        layers.append((device.put(2 * np.float32(W) - 1), of_units))
    taken = _part(device, len(pixels), operations)
    inputs = 2 * np.float32(pixels[:taken].reshape(taken, -1)) - 255

    def step():
        x = device.put(inputs)
        for W, of_units in layers:
            x = multiply(x, W)
            if of_units:
                device.signs(x, *of_units)
        return bnn_network.normalized(x.get(), arrays)

    return step, taken / len(pixels), step()[:checked].tolist()


def _part(device, rows, operations):
    """The number of rows, of `operations` each, that a float kernel multiplies."""
    if opencl.is_gpu(device.device):
        return rows
    return min(rows, max(1, OPERATIONS // operations // opencl.TILE) * opencl.TILE)


def _finished(device, step):
    """A function like `step` that waits until the device has finished."""

    def run():
        step()
        device.queue.finish()

    return run


def _first(result, checked):
    return result.get()[:checked].astype(int).tolist()


def _float_product(rival, device):
    if rival == "clblast":
        return CLBlast(device)
    return device.tiled_product if rival == "tiled" else device.plain_product


class CLBlast:
    """CLBlast's sgemm by its C interface: a b for float32 arrays on a device."""

    ROW_MAJOR, NOT_TRANSPOSED = 101, 111

    def __init__(self, device):
        self.device = device
        self._sgemm = self.library().CLBlastSgemm

    @staticmethod
    def library():
        return ctypes.CDLL("libclblast.so.1")

    def __call__(self, a, b):
        (rows, depth), units = a.shape, b.shape[1]
        c = self.device.empty((rows, units), np.float32)
        size, buffer, real = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_float
        queue = ctypes.c_void_p(self.device.queue.int_ptr)

        def matrix(array):
            return buffer(array.data.int_ptr), size(0), size(array.shape[1])

        status = self._sgemm(
            *(self.ROW_MAJOR, self.NOT_TRANSPOSED, self.NOT_TRANSPOSED),
            *map(size, (rows, units, depth)),
            *(real(1), *matrix(a), *matrix(b), real(0), *matrix(c)),
            *(ctypes.byref(queue), None),
        )
        if status:
            raise UserError(f"CLBlast's sgemm failed with status {status}; expected 0")
        return c
