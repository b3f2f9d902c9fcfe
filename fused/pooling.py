"""2x2 max pooling, threaded and vectorised, for the networks of CIFAR-10 and SVHN.

A graph rewrite puts these ops in the place of ``theano.tensor.signal.pool.pool_2d(input, (2, 2),
ignore_border=True)`` on 4D float32 variables, and of its gradient; they equal them bit for bit. As
in Theano, where several of the four pixels are the maximum each of them gets the whole gradient.
Not for NaN.
"""

import zlib
from pathlib import Path

import theano
import theano.tensor as T
from theano.tensor.signal.pool import MaxPoolGrad, Pool

from .op import enabled

_SOURCE = (Path(__file__).parent / "kernels" / "pooling.cpp").read_text()


class _PoolingOp(theano.Op):
    __props__ = ()

    def make_node(self, *variables):
        pattern = self._pattern(*variables[0].broadcastable)
        return theano.Apply(self, list(variables), [T.TensorType("float32", pattern)()])

    def c_support_code(self):
        return _SOURCE

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = ", ".join([*inputs, f"&{outputs[0]}"])
        return f"if (pooling::{self.function}({arguments})) {{ {sub['fail']} }}"

    def c_compile_args(self):
        return ["-fopenmp"]

    def c_code_cache_version(self):
        return (zlib.crc32(_SOURCE.encode()),)


class _MaxPool(_PoolingOp):
    function = "max_pool"  # of pooling.cpp

    @staticmethod
    def _pattern(batch, channels, height, width):
        return (batch, channels, False, False)

    def infer_shape(self, node, shapes):
        ((batch, channels, height, width),) = shapes
        return [(batch, channels, height // 2, width // 2)]


class _MaxPoolGradient(_PoolingOp):
    function = "max_pool_gradient"  # of pooling.cpp

    @staticmethod
    def _pattern(*pattern):
        return pattern

    def infer_shape(self, node, shapes):
        return [shapes[0]]


@theano.tensor.opt.register_specialize
@theano.gof.local_optimizer([Pool, MaxPoolGrad])
def fuse_pooling(node):
    if not (enabled() and node.op.mode == "max" and node.op.ignore_border and node.op.ndim == 2):
        return False
    *tensors, size, stride, pad = node.inputs
    x = tensors[0]
    if (x.ndim, x.dtype) != (4, "float32"):
        return False
    for variable, value in ((size, 2), (stride, 2), (pad, 0)):
        if not isinstance(variable, T.Constant) or (variable.data != value).any():
            return False
    if isinstance(node.op, Pool):
        return [_MaxPool()(x)]
    return [_MaxPoolGradient()(x, tensors[2])]
