"""What runs here, as JSON: versions of all packages, checksum of the lock, commit, processor."""

import json
import sys
from urllib.parse import quote

from original_stack.command_line import Parser, run

from reproduction.training.environment import provenance


def bill_of_materials(facts):
    """The packages of `provenance` as a software bill of materials.

    Parameters
    ----------
    facts : dict
        See `reproduction.training.environment.provenance`.

    Returns
    -------
    dict
        A CycloneDX document, version 1.5 (https://cyclonedx.org/docs/1.5/json).
    """

    def component(name, version, kind, identifier):
        purl = f"pkg:{kind}/{quote(identifier)}@{quote(version, safe=':')}"
        return {"type": "library", "name": name, "version": version, "purl": purl}

    components = [
        component(name, version, "pypi", name.lower().replace("_", "-"))
        for name, version in facts["packages"].items()
    ]
    for name, version in facts["debian"].items():
        name = name.partition(":")[0]  # of name:architecture
        components.append(component(name, version, "deb/debian", name))
    program = {"type": "application", "name": "binaryconnect"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**program, "version": facts["git_commit"] or "unknown"}},
        "components": components,
    }


def command(options):
    facts = provenance()
    print(json.dumps(bill_of_materials(facts) if options.sbom else facts, indent=2))


def main(argv=None):
    parser = Parser(prog="provenance", description=__doc__)
    parser.add_argument(
        "--sbom",
        action="store_true",
        help="the packages alone, as a software bill of materials (CycloneDX 1.5)",
    )
    return run(parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
