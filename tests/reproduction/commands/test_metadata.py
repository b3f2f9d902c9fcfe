import datetime
import hashlib
import json

import original_stack

import yaml

from reproduction.commands import metadata


def test_codemeta_agrees_with_the_citation():
    """After a change of CITATION.cff, codemeta.json is to hold what `codemeta` returns."""
    codemeta = json.loads((original_stack.ROOT / "codemeta.json").read_text())
    assert codemeta == metadata.codemeta()


def test_papers_and_their_authors():
    first, second = metadata.codemeta()["citation"]
    assert (first["identifier"], first["datePublished"]) == (["arXiv:1511.00363"], "2015")
    assert (second["identifier"], second["datePublished"]) == (["arXiv:1602.02830"], "2016")
    assert first["author"][0] == {
        "@type": "Person",
        "givenName": "Matthieu",
        "familyName": "Courbariaux",
    }
    assert [author["familyName"] for author in second["author"]] == [
        "Courbariaux",
        "Hubara",
        "Soudry",
        "El-Yaniv",
        "Bengio",
    ]


def test_a_release_has_a_version_and_a_date():
    citation = yaml.safe_load((original_stack.ROOT / "CITATION.cff").read_text())
    datetime.date.fromisoformat(citation["date-released"])
    assert metadata.codemeta()["version"] == citation["version"]


def test_crate(tmp_path):
    contents = {
        "binaryconnect.tar.gz": b"program",
        "data/mnist/t10k-labels-idx1-ubyte": b"labels",
        "packages/a.whl": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    crate = metadata.crate(tmp_path, "0123abc", datetime.date(2026, 1, 2))
    assert crate["@context"] == "https://w3id.org/ro/crate/1.2/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = entities["./"]
    assert [part["@id"] for part in root["hasPart"]] == list(contents)
    assert (root["datePublished"], root["license"]) == (
        "2026-01-02",
        {"@id": "https://spdx.org/licenses/BSD-3-Clause"},
    )
    for name, content in contents.items():
        assert entities[name]["contentSize"] == str(len(content))
        assert entities[name]["sha256"] == hashlib.sha256(content).hexdigest()
    assert entities["binaryconnect.tar.gz"]["identifier"] == "0123abc"
    license = entities["data/mnist/t10k-labels-idx1-ubyte"]["license"]["@id"]
    assert "Attribution-Share Alike 3.0" in entities[license]["description"]
    assert "license" not in entities["packages/a.whl"]
    assert "#license-svhn" not in entities
