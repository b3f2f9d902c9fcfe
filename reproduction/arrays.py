"""Archives of arrays (.npz) that come from outside: checked before anything is allocated."""

import io
import zipfile

from original_stack.errors import open_regular, reading

import numpy as np

LARGEST = 8 * 2**30  # bytes of all arrays of an archive; a checkpoint has less than 1 GiB
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path, remedy, largest=LARGEST):
    """The arrays of an .npz archive, {name: array}.

    Parameters
    ----------
    path : path
    remedy : str
        What to do if the file is damaged.
    largest : int
        Bytes that all arrays together may have.

    Raises
    ------
    FileNotFoundError
    UserError
        If it cannot be read or is damaged: a size that the archive does not hold, an array of
        Python objects, more than `largest` bytes, numbers that are not of this machine's order.
    """
    with open_regular(path) as f, reading(path, remedy), zipfile.ZipFile(f) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > largest:
            raise ValueError(f"more than {largest} bytes")
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays or name == member.filename:
                raise ValueError(f"member {member.filename}")
            arrays[name] = _array(archive, member)
        return arrays


def _array(archive, member):
    with archive.open(member) as content:
        shape, fortran_order, dtype = _HEADERS[np.lib.format.read_magic(content)](content)
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        count = 1
        for length in shape:
            count *= length
        size = count * dtype.itemsize
        if min(shape, default=1) < 0 or size > member.file_size:
            raise ValueError(f"an array of shape {shape} in {member.file_size} bytes")
        data = content.read(size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
    array = np.frombuffer(bytearray(data), dtype=dtype, count=count)
    return array.reshape(shape, order="F" if fortran_order else "C")


def npz(**arrays):
    """The bytes of an .npz archive."""
    content = io.BytesIO()  # on a full disk zipfile would leave half an archive
    np.savez(content, **arrays)
    return content.getbuffer()
