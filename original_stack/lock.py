"""The versions that requirements.lock pins.

`python original_stack/lock.py` exits with status 1 if this environment lacks one of them, which
`reproduce` asks.
"""

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"


def locked_versions(lock=LOCK):
    """{package: version} of the lock."""
    return dict(
        re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", Path(lock).read_text(), flags=re.MULTILINE)
    )


def unsatisfied(lock=LOCK):
    """The packages of the lock that this environment lacks or has in another version."""

    def installed(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return [f"{name}=={v}" for name, v in locked_versions(lock).items() if installed(name) != v]


def check(*names):
    """Raise a UserError if the package that an import would find is not the lock's, because a
    folder on PYTHONPATH or beside a script comes first. Records would name the wrong version."""
    from original_stack.errors import UserError  # not at the top: `reproduce` runs this file alone

    versions = locked_versions()
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # the import will say that it is missing
        origin = Path(spec.origin or spec.submodule_search_locations[0])
        try:
            package = importlib.metadata.distribution(name)
            folder = Path(package.locate_file("")).resolve()
            is_locked = package.version == versions[name] and folder in origin.resolve().parents
        except importlib.metadata.PackageNotFoundError:
            is_locked = False
        if not is_locked:
            raise UserError(
                f"{name} is imported from {origin}; expected version {versions[name]} of "
                "requirements.lock; remove the other one from PYTHONPATH, or rename it"
            )


if __name__ == "__main__":
    sys.exit(1 if unsatisfied() else 0)
