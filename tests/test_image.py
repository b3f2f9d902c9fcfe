"""Dockerfile, environment.yml and requirements.lock tell one story; .ci/image runs the image."""

import re
import subprocess

from original_stack import ROOT
from original_stack.lock import locked_versions

import pytest
import yaml

DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def test_python_is_the_one_that_reproduce_demands():
    python = re.search(
        r"sys\.version_info\[:2\] != \((\d+), (\d+)\)", (ROOT / "reproduce").read_text()
    )
    python = ".".join(python.groups())
    assert f"python={python}" in ENVIRONMENT["dependencies"]
    assert set(re.findall(r"python(\d[\d.]*)-\w+", DOCKERFILE)) == {python}


def test_debian_is_of_one_day_and_the_base_is_pinned():
    base, day = re.search(
        r"^ARG BASE=(debian:bookworm-(\d+)-slim@sha256:[0-9a-f]{64})$", DOCKERFILE, re.M
    ).groups()
    assert f"\nARG SNAPSHOT={day}T000000Z\n" in DOCKERFILE


def test_versions_on_the_label_are_the_locks():
    version = locked_versions()
    stack = ", ".join(f"{name} {version[name.lower()]}" for name in ("Theano", "Lasagne", "Fuel"))
    assert f'versions="Python 3.11, {stack}"' in DOCKERFILE


def test_packages_come_from_the_lock_only():
    assert ENVIRONMENT["dependencies"] == ["python=3.11", "gxx=12"]  # of pip nothing
    assert "pip install" not in DOCKERFILE
    assert not re.findall(r"\w==\d", DOCKERFILE)


def test_image_holds_no_more_than_git(tmp_path):
    """.dockerignore has all of .gitignore, in its own syntax."""
    ours = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / ".gitignore").read_text().splitlines():
        again = "!" * line.startswith("!")  # what is not to be ignored after all
        line = line.removeprefix("!")
        anchored = line.strip("/") if line.startswith("/") else f"**/{line.strip('/')}"
        assert again + anchored in ours


@pytest.mark.parametrize(
    ("head", "packed"),
    [("ref: refs/heads/x\n", True), ("ref: refs/heads/x\n", False), ("a" * 40 + "\n", False)],
    ids=["packed", "loose", "detached"],
)
def test_commit_is_read_from_git(tmp_path, head, packed):
    """The step of the Dockerfile, run on a .git as it may be."""
    step = re.search(r"^ARG COMMIT\nRUN (.*?)\n\n", DOCKERFILE, re.M | re.S).group(1)
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(head)
    name, content = ("packed-refs", "{} refs/heads/x\n") if packed else ("refs/heads/x", "{}\n")
    (git / name).write_text(content.format("a" * 40))
    subprocess.run(
        ["sh", "-c", step.replace("/binaryconnect", str(tmp_path)).replace("\\\n", "")],
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "commit").read_text() == "a" * 40 + "\n"
    assert not git.exists()
