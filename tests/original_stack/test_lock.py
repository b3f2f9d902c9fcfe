import importlib.metadata
import subprocess
import sys

from original_stack import ROOT
from original_stack.lock import LOCK, check, locked_versions, unsatisfied

import pytest
import six
from checks import python, refusal


def test_unsatisfied(tmp_path):
    assert unsatisfied() == []
    lock = tmp_path / "lock"
    lock.write_text(
        "numpy==1.23.4 \\\n    --hash=sha256:00\nno-such-package==1 \\\nsix==1.17.0 \\\n"
    )
    assert unsatisfied(lock) == ["numpy==1.23.4", "no-such-package==1"]


def test_a_package_that_is_not_installed(monkeypatch):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    check("six", "no_such_package")
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert refusal(check, "six") == (
        f"six is imported from {six.__file__}; expected version 1.17.0 of requirements.lock; "
        "remove the other one from PYTHONPATH, or rename it"
    )


def test_what_reproduce_asks(tmp_path):
    """The file runs alone, without the package."""
    (tmp_path / "original_stack").mkdir()
    script = tmp_path / "original_stack" / "lock.py"
    script.write_text((ROOT / "original_stack" / "lock.py").read_text())
    for text, status in (("six==1.17.0 \\\n", 0), ("six==1.16.0 \\\n", 1)):
        (tmp_path / "requirements.lock").write_text(text)
        assert subprocess.run([sys.executable, script], cwd=tmp_path).returncode == status


def test_every_package_of_the_lock_has_a_hash():
    blocks = [block for block in LOCK.read_text().replace("\\\n", "").splitlines() if "==" in block]
    names = locked_versions()
    assert {"theano", "lasagne", "fuel", "pip", "setuptools", "wheel"} <= set(names)
    assert len(blocks) == len(names)
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("module", ["numpy/__init__.py", "six.py"])
def test_a_package_that_shadows_the_lock_s_is_refused(tmp_path, module):
    path = tmp_path / module
    path.parent.mkdir(exist_ok=True)
    path.write_text("__version__ = '9'\n")
    (tmp_path / "program.py").write_text("import original_stack, theano")
    name = path.parent.name if path.stem == "__init__" else path.stem
    done = python(tmp_path / "program.py")
    assert (done.returncode, done.stderr) == (
        2,
        f"program: {name} is imported from {path}; expected version {locked_versions()[name]} "
        "of requirements.lock; remove the other one from PYTHONPATH, or rename it\n",
    )
