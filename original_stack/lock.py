"""The versions that requirements.lock pins.

`python original_stack/lock.py` exits with status 1 if this environment lacks any of them:
`reproduce` asks so.
"""

import importlib.metadata
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
    """Packages of the lock that this environment lacks or has in another version."""

    def installed(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return [f"{name}=={v}" for name, v in locked_versions(lock).items() if installed(name) != v]


if __name__ == "__main__":
    sys.exit(1 if unsatisfied() else 0)
