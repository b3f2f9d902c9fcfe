"""What machines read: CITATION.cff in the terms of schema.org (CodeMeta 3.0), and the manifest of
an archive (RO-Crate 1.2, https://w3id.org/ro/crate/1.2)."""

import hashlib

import original_stack

import yaml

from reproduction.datasets import files as data_files

SPDX = "https://spdx.org/licenses/"


def codemeta():
    """The content of codemeta.json, from CITATION.cff: a dict."""
    citation = yaml.safe_load((original_stack.ROOT / "CITATION.cff").read_text())
    return {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": citation["title"],
        "description": citation["abstract"],
        "version": citation["version"],
        "datePublished": citation["date-released"],
        "license": SPDX + citation["license"],
        "author": [_author(author) for author in citation["authors"]],
        "programmingLanguage": ["Python", "C++"],
        "operatingSystem": "Linux",
        "citation": [
            {
                "@type": "ScholarlyArticle",
                "name": paper["title"],
                "author": [_author(author) for author in paper["authors"]],
                "datePublished": str(paper["year"]),
                "identifier": [identifier["value"] for identifier in paper["identifiers"]],
            }
            for paper in citation["references"]
        ],
    }


def _author(author):
    if "name" in author:
        return {"@type": "Organization", "name": author["name"]}
    names = {"givenName": author["given-names"], "familyName": author["family-names"]}
    return {"@type": "Person", **names}


def crate(folder, commit, date):
    """The manifest of an archive.

    Parameters
    ----------
    folder : Path
        It holds all files but the manifest and SHA256SUMS.
    commit : str
    date : datetime.date

    Returns
    -------
    dict
        The content of ro-crate-metadata.json, with size and checksum of each file. A data file has
        the license of its data set, the others contain their own licenses.
    """
    program = codemeta()
    entities, parts = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        entity = {
            "@id": path.relative_to(folder).as_posix(),
            "@type": "File",
            "contentSize": str(path.stat().st_size),
            "sha256": sha256(path),
        }
        dataset = data_files.dataset_of(path.name)
        if path.name == "binaryconnect.tar.gz":
            entity = {**program, **entity, "@type": ["File", "SoftwareSourceCode"]}
            entity.update(license={"@id": program["license"]}, identifier=commit)
            for key in ("@context", "author", "citation"):
                del entity[key]
        elif dataset:
            entity["license"] = {"@id": f"#license-{dataset}"}
        entities.append(entity)
        parts.append({"@id": entity["@id"]})
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{program['name']}: archive of commit {commit}",
        "description": program["description"],
        "datePublished": str(date),
        "license": {"@id": program["license"]},
        "hasPart": parts,
    }
    licenses = [{"@id": program["license"], "@type": "CreativeWork", "name": "BSD-3-Clause"}]
    used = {entity["license"]["@id"] for entity in entities if "license" in entity}
    for dataset, text in data_files.LICENSES.items():
        if f"#license-{dataset}" in used:
            license = {"@id": f"#license-{dataset}", "@type": "CreativeWork"}
            licenses.append({**license, "name": f"license of {dataset}", "description": text})
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.2"},
        "about": {"@id": "./"},
    }
    return {
        "@context": "https://w3id.org/ro/crate/1.2/context",
        "@graph": [descriptor, root, *licenses, *entities],
    }


def sha256(path):
    """The checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
