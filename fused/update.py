"""A graph rewrite that computes the whole update of a parameter in one pass.

Lasagne's optimizers and `binary_connect.clipping_scaling` state an update as several expressions:
for Adam, the two moments and the weights. Theano would compute them one by one, and the gradient
twice. The rewrite gathers the elementwise expressions for the new values of shared variables into
one op, which computes them together and in place. Reference: these expressions.
"""

import numpy as np
import theano
import theano.tensor as T
from theano.gof import graph
from theano.tensor.elemwise import Elemwise

from .op import Op, enabled


class Update(Op):
    """Elementwise functions of float32 tensors of one shape and of scalars (tensors that are
    broadcastable along every axis), in one pass. The first inputs are the old values of the
    outputs.

    Parameters
    ----------
    scalar_op : theano.scalar.Composite
        The function of the elements.
    inplace : bool
        Whether outputs take the memory of the old values.
    """

    __props__ = ("scalar_op", "inplace")
    source = "update.h"

    def __init__(self, scalar_op, inplace=False):
        self.scalar_op = scalar_op
        self.inplace = inplace
        if inplace:
            self.destroy_map = {i: [i] for i in range(scalar_op.nout)}

    def __str__(self):
        return type(self).__name__ + "{inplace}" * self.inplace

    def in_place(self):
        """The same op, whose outputs take the memory of the old values."""
        return Update(self.scalar_op, inplace=True)

    def make_node(self, *inputs):
        outputs = [x.type() for x in inputs[: self.scalar_op.nout]]
        return theano.Apply(self, list(inputs), outputs)

    def infer_shape(self, node, shapes):
        return shapes[: len(node.outputs)]

    def c_support_code(self):
        return self.scalar_op.c_support_code()

    def c_support_code_apply(self, node, name):
        return self.scalar_op.c_support_code_apply(_scalar_node(self.scalar_op), name)

    def c_code_cache_version(self):
        version = self.scalar_op.c_code_cache_version()
        return (super().c_code_cache_version(), version) if version else ()

    def c_code(self, node, name, inputs, outputs, sub):
        return self.c_code_of(
            inputs,
            [all(x.broadcastable) for x in node.inputs],
            name,
            outputs,
            sub,
            """
            fused::parallel(tensors.size(), tensors.size(), [=](long begin, long end) {
                #pragma omp simd
                for (long k = begin; k < end; ++k) { ELEMENT }
            });""",
        )

    def c_code_of(self, inputs, scalar, name, outputs, sub, loop):
        """The C++ code of the op.

        Parameters
        ----------
        inputs : list of str
            The names of the arrays of the function's inputs; None for an input whose elements x
            `loop` gives itself.
        scalar : list of bool
            Which inputs are scalars.
        name, outputs, sub
            As in `c_code`.
        loop : str
            A loop over k in which ELEMENT stands for the code of element k.
        """
        full = [i for i, x in enumerate(inputs) if x and not scalar[i]]
        scalars = [i for i, x in enumerate(inputs) if x and scalar[i]]
        y = range(len(outputs))
        element = self.scalar_op.c_code(
            _scalar_node(self.scalar_op),
            name + "_element",
            [f"x{i}" for i in range(len(inputs))],
            [f"y{i}" for i in y],
            {"fail": sub["fail"]},
        )

        def lines(line, indices):
            return "\n".join(line(i) for i in indices)

        element = f"""
            {lines(lambda i: f"const float x{i} = in{i}[k];", full)}
            {lines(lambda i: f"float y{i};", y)}
            {element}
            {lines(lambda i: f"out{i}[k] = y{i};", y)}
        """
        return f"""
        if (fused::fails([&] {{
            const update::Tensors tensors({{{", ".join(inputs[i] for i in full)}}});
            {lines(lambda i: f"const float x{i} = *(float *)PyArray_DATA({inputs[i]});", scalars)}
            {lines(lambda k: f"const float *in{full[k]} = tensors.data({k});", range(len(full)))}
            {
            lines(
                lambda i: f"float *out{i} = tensors.output({i}, &{outputs[i]}, {self.inplace:d});",
                y,
            )
        }
            {loop.replace("ELEMENT", element)}
        }})) {{ {sub["fail"]} }}
        """


def _scalar_node(composite):
    return composite.make_node(*[x.type() for x in composite.inputs])


def _elementwise(variable, type):
    """Whether `variable` is an elementwise function of tensors of `type` and of scalars."""
    node = variable.owner
    return (
        node is not None
        and isinstance(node.op, Elemwise)
        and len(node.outputs) == 1
        and variable.type == type
        and all(x.broadcastable in (type.broadcastable, (True,) * x.ndim) for x in node.inputs)
    )


def _cone(new):
    """The elementwise nodes from which `new` is computed."""
    nodes, todo = set(), [new]
    while todo:
        variable = todo.pop()
        if _elementwise(variable, new.type) and variable.owner not in nodes:
            nodes.add(variable.owner)
            todo += variable.owner.inputs
    return nodes


def _groups(new_values):
    """Group the `new_values` that have expressions in common, as a weight and its moments have:
    [(new values, nodes)]."""
    groups = []
    for new in new_values:
        news, nodes = [new], _cone(new)
        for group in [group for group in groups if group[1] & nodes]:
            groups.remove(group)
            news, nodes = group[0] + news, group[1] | nodes
        groups.append((news, nodes))
    return groups


def _update(old, new, nodes):
    """`new`, which `nodes` compute from the values `old` and others, as outputs of one op; None if
    that is not possible."""
    # Nodes that other nodes need too are computed separately and become inputs.
    inside, order = set(), graph.io_toposort([], new)
    for node in reversed(order):
        clients = {client for client, _ in node.outputs[0].clients}
        if node in nodes and (node.outputs[0] in new or clients <= inside):
            inside.add(node)
    order = [node for node in order if node in inside]
    outside = [x for node in order for x in node.inputs if x.owner not in inside]
    inputs = list(dict.fromkeys(old + [x for x in outside if not isinstance(x, T.Constant)]))
    if any(x.dtype != "float32" for x in inputs) or inside & set(graph.io_toposort([], outside)):
        return None
    if not set(old) <= set(outside):  # the new value may have another shape
        return None

    # The same simplifications as everywhere (x ** 2 to x * x, ...).
    copies = graph.clone_get_equiv([], new, copy_inputs=False, memo={x: x.type() for x in inputs})
    # Some of them ask for shapes.
    fgraph = theano.gof.FunctionGraph(
        [copies[x] for x in inputs],
        [copies[x] for x in new],
        features=[T.opt.ShapeFeature()],
        clone=False,
    )
    theano.compile.optdb["specialize"].query("+fast_run").optimize(fgraph)
    results = fgraph.outputs + [node.outputs[0] for node in fgraph.apply_nodes]
    if not all(_elementwise(x, new[0].type) for x in results):
        return None
    constants = [x for node in fgraph.toposort() for x in node.inputs if isinstance(x, T.Constant)]
    if any(x.dtype != "float32" and x.data.size != 1 for x in constants):  # masks
        return None

    # From tensors to their elements. Constants become inputs, so that layers that differ only in
    # constants share compiled code.
    inner = list(fgraph.inputs)
    inner += [x for x in constants if x.dtype == "float32"]
    inner = list(dict.fromkeys(inner))
    element = {x: theano.scalar.get_scalar_type(x.dtype)() for x in inner}
    for node in fgraph.toposort():
        arguments = [
            element[x]
            if x in element
            else theano.scalar.constant(np.asarray(x.data).item(), dtype=x.dtype)
            for x in node.inputs
        ]
        element[node.outputs[0]] = node.op.scalar_op(*arguments)
    composite = theano.scalar.Composite(
        [element[x] for x in inner], [element[x] for x in fgraph.outputs]
    )
    return Update(composite)(*inputs, *(x.clone() for x in inner[len(inputs) :]), return_list=True)


class FuseUpdates(theano.gof.Optimizer):
    """Replace the elementwise updates of float32 shared variables by :class:`Update`."""

    def apply(self, fgraph):
        if not enabled():
            return
        old_of = {
            fgraph.outputs[o]: fgraph.inputs[i] for o, i in (fgraph.update_mapping or {}).items()
        }
        new_values = [
            new
            for new, old in old_of.items()
            if new.type == old.type
            and getattr(new, "dtype", None) == "float32"
            and not all(new.broadcastable)
            and _elementwise(new, new.type)
        ]
        for new, nodes in _groups(new_values):
            fused = _update([old_of[x] for x in new], new, nodes)
            if fused is not None:
                fgraph.replace_all_validate(
                    list(zip(new, fused, strict=True)), reason="FuseUpdates"
                )


@theano.gof.local_optimizer([Update], inplace=True)
def update_in_place(node):
    if isinstance(node.op, Update) and not node.op.inplace:
        return node.op.in_place()(*node.inputs, return_list=True)
    return False


# Before gradients are merged into products (BlasOpt, 1.7); in place when Theano works in place.
theano.compile.optdb.register("fuse_updates", FuseUpdates(), 1.6, "fast_run")
theano.compile.optdb.register(
    "update_in_place",
    theano.gof.TopoOptimizer(
        update_in_place, failure_callback=theano.gof.TopoOptimizer.warn_inplace
    ),
    75.1,
    "fast_run",
    "inplace",
)
