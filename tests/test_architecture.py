"""The layers of the project: which module may import which, and which never load Theano."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter

from original_stack import ROOT

import pytest

# An import points to a lower floor, or stays in its package.
FLOORS = {
    "original_stack": 1,
    "fused": 2,
    "reproduction.arrays": 2,
    "reproduction.published": 2,
    "reproduction.datasets": 3,
    "binary_connect": 3,
    "batch_norm": 3,
    "shift_based": 4,
    "binary_net": 5,
    "reproduction.training": 6,
    "mnist": 7,
    "cifar10": 7,
    "svhn": 8,
    "reproduction.experiments": 9,
    "reproduction.report": 10,
    "reproduction.deploy": 11,
    "reproduction.sweep": 11,
    "reproduction.commands": 12,
    "benchmarks": 13,
}
METHOD = {"binary_connect", "batch_norm", "shift_based", "binary_net"}
THEANO = {"theano", "lasagne"}
FILES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for pattern in ("*.py", "original_stack/**/*.py", "fused/**/*.py", "reproduction/**/*.py")
    for path in ROOT.glob(pattern)
} | {path: f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")}
MODULES = {name: path for path, name in FILES.items()}


def imports(path):
    """Names of all modules that a file imports, at its top or within functions."""
    names = set()
    package = FILES[path].split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names.update(
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in MODULES else origin
                for alias in node.names
            )
    return names


def room(module):
    """The package or top module of FLOORS that has a module, or None if the project has none."""
    matching = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    return max(matching, key=len, default=None)


def rooms_known():
    """{package: packages that its files import}"""
    known = {name: set() for name in FLOORS}
    for path, module in FILES.items():
        if room(module):
            known[room(module)] |= {room(name) for name in imports(path)} - {None, room(module)}
    return known


def test_every_file_has_a_floor():
    homeless = [name for name in FILES.values() if room(name) is None]
    assert homeless == ["reproduction"]
    assert len(FLOORS) <= 20


def test_imports_point_down():
    up = [
        f"{name} -> {other}"
        for name, others in rooms_known().items()
        for other in others
        if FLOORS[other] >= FLOORS[name]
    ]
    assert up == []


def test_no_circle_of_files():
    graph = {
        name: {other for other in imports(path) if other in MODULES and other != name}
        for path, name in FILES.items()
    }
    for name, others in graph.items():  # a package's __init__ may gather its modules
        others -= {package for package in others if name.startswith(f"{package}.")}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_original_stack_imports_the_standard_library_only():
    for path, module in FILES.items():
        if room(module) == "original_stack":
            # The finder of old modules imports packages only when they are being imported anyway.
            served = {"theano", "six", "numpy"} if module == "original_stack.old_names" else set()
            others = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names
            assert others - served <= {"original_stack"}, module


def test_the_method_knows_fused_and_the_stack_only():
    known = rooms_known()
    for name in METHOD:
        assert known[name] <= METHOD | {"fused", "original_stack"}


def test_only_fused_knows_instructions():
    """The stack is excepted, because it reads the processor's flags."""
    for path, module in FILES.items():
        if room(module) not in ("fused", "original_stack", "benchmarks", None):
            assert not re.search(r"\b_mm\d*_|-mavx", path.read_text()), module


def test_only_report_writes_markdown():
    for path, module in FILES.items():
        if room(module) != "reproduction.report":
            assert not re.search(r"\|-|\| -|[\"']\| ", path.read_text()), module


def test_no_test_imports_another():
    """What tests share stands in conftest.py, checks.py, formats.py and their like."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "asname")]
            origin = [getattr(node, "module", None) or ""] if names else []
            for part in ".".join([*origin, *names]).split("."):
                assert not part.startswith("test_"), f"{path.name} imports {part}"


@pytest.mark.parametrize(
    "module",
    [
        *(name for name in MODULES if name.startswith("reproduction.report")),
        "reproduction.arrays",
        "reproduction.published",
        "reproduction.datasets.preprocessing",
        "reproduction.deploy.network",
        "reproduction.deploy.opencl",
        "reproduction.training.hyperparameters",
    ],
)
def test_loads_no_theano(module):
    code = (
        f"import sys, {module}; "
        f"print(sorted({THEANO!r} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
