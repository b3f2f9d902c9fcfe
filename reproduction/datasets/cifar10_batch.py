"""Read a batch of CIFAR-10 without an unpickler, which could import and call anything."""

import pickletools

import numpy as np


def read(content):
    """The images and labels of a batch.

    Parameters
    ----------
    content : bytes
        A pickled dict of any protocol with at least `data` and `labels`.

    Returns
    -------
    dict
        `data`, a uint8 array of shape (n, 3072), and `labels`, a list of n integers from 0 to 9.

    Raises
    ------
    ValueError and others of `errors.DAMAGE`
        If the batch is damaged.
    """
    batch = _unpickle(content)
    images, labels = batch["data"].pixels(), batch["labels"]
    if isinstance(labels, _Array):
        labels = labels.pixels().tolist()
    integers = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not integers or images.shape != (len(labels), 3072):
        raise ValueError("expected uint8 data of shape (n, 3072) and n integer labels")
    if labels and not 0 <= min(labels) <= max(labels) <= 9:
        raise ValueError(f"labels from {min(labels)} to {max(labels)}; expected 0 to 9")
    return {"data": images, "labels": labels}


class _Array:
    """What a pickle says about a uint8 array. NumPy would trust its types and sizes."""

    def __init__(self, *_):
        self.content, self.shape, self.fortran_order = b"", (0,), False

    def build(self, state):
        _, self.shape, kind, self.fortran_order, self.content = state
        if not isinstance(kind, _Uint8):
            raise ValueError("an array without a type")

    def pixels(self):
        content = self.content
        if isinstance(content, str):  # as Python 2 wrote it
            content = content.encode("latin1")
        order = "F" if self.fortran_order else "C"
        return np.frombuffer(content, np.uint8).reshape(self.shape, order=order)


class _Uint8:
    """The only array type that is accepted."""

    def __init__(self, name, *_):
        if name != "u1":
            raise ValueError(f"an array of type {name}; expected uint8")

    def build(self, state):
        pass


def _from_buffer(content, kind, shape, order):
    array = _Array()
    array.build((1, shape, kind, order == "F", content))
    return array


# Called instead of the functions that a pickle of arrays names.
_STAND_INS = {
    "_codecs encode": lambda text, encoding: text,  # bytes that Python 3 pickled for Python 2
    "numpy dtype": _Uint8,
    "numpy ndarray": None,
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy.core.numeric _frombuffer": _from_buffer,
}


_VALUES = (
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)


def _stand_in(name):
    name = name.replace("numpy._core", "numpy.core")  # NumPy 2
    if name not in _STAND_INS:
        raise ValueError(f"it asks for {name.replace(' ', '.')}, which data do not need")
    return _STAND_INS[name]


def _unpickle(content):
    """The content of a pickle of dicts, lists, tuples, text, bytes, integers and uint8 arrays.

    Nothing is imported, and only the stand-ins are called.

    Raises
    ------
    ValueError and others
        If the pickle has anything else.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def fill(target, items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int):  # deep tuples exhaust the stack
                raise ValueError("a key that is neither text nor a number")
            target[key] = value
        return target

    for opcode, argument, position in pickletools.genops(content):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                end = position + 1
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                stack.append({"LIST": [], "TUPLE": (), "DICT": {}}[opcode.name[6:]])
            case "LIST":
                stack.append(since_mark())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "DICT":
                stack.append(fill({}, since_mark()))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                fill(stack[-1], [key, value])
            case "SETITEMS":
                items = since_mark()
                fill(stack[-1], items)
            case "GLOBAL":
                stack.append(_stand_in(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_stand_in(f"{module} {name}"))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(function(*arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].build(state)
            case name if name in _VALUES:
                stack.append(argument)
            case name:
                raise ValueError(f"it has {name}, which data do not need")
    if end != len(content):
        raise ValueError(f"{len(content) - end} bytes after its end")
    (result,) = stack
    return result
