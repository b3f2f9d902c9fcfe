import json

from reproduction.commands import provenance

FACTS = {
    "git_commit": "0123abc",
    "packages": {"Theano": "1.0.5", "picklable_itertools": "0.1.1"},
    "debian": {"g++": "4:12.2.0-3", "libstdc++6:amd64": "12.2.0-14~deb12u1"},
}


def test_bill_of_materials():
    """Checked once against the schema of CycloneDX 1.5."""
    assert provenance.bill_of_materials(FACTS) == {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": "binaryconnect", "version": "0123abc"}
        },
        "components": [
            {"type": "library", "name": name, "version": version, "purl": f"pkg:{purl}"}
            for name, version, purl in (
                ("Theano", "1.0.5", "pypi/theano@1.0.5"),
                ("picklable_itertools", "0.1.1", "pypi/picklable-itertools@0.1.1"),
                ("g++", "4:12.2.0-3", "deb/debian/g%2B%2B@4:12.2.0-3"),
                (
                    "libstdc++6",
                    "12.2.0-14~deb12u1",
                    "deb/debian/libstdc%2B%2B6@12.2.0-14~deb12u1",
                ),
            )
        ],
    }


def test_command(capsys):
    assert provenance.main([]) == 0
    packages = json.loads(capsys.readouterr().out)["packages"]
    assert packages["Theano"] == "1.0.5"
    assert provenance.main(["--sbom"]) == 0
    components = json.loads(capsys.readouterr().out)["components"]
    purls = [
        component["purl"] for component in components if component["purl"].startswith("pkg:py")
    ]
    assert len(purls) == len(packages)
    assert "pkg:pypi/theano@1.0.5" in purls
