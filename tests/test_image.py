"""Tests of Dockerfile and environment.yml that .ci/image cannot make, because it sets arguments."""

import datetime
import re
import subprocess

from original_stack import ROOT

import pytest
import yaml

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_conda_has_the_python_that_reproduce_requires_and_no_packages():
    major, minor = re.search(
        r"sys\.version_info\[:2\] != \((\d+), (\d+)\)", (ROOT / "reproduce").read_text()
    ).groups()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"] == [f"python={major}.{minor}", "gxx=12"]


def test_the_debian_snapshot_and_the_base_are_pinned():
    day = re.search(
        r"^ARG BASE=debian:bookworm-(\d+)-slim@sha256:[0-9a-f]{64}$", DOCKERFILE, re.M
    ).group(1)
    midnight = datetime.datetime.strptime(f"{day}+0000", "%Y%m%d%z")
    assert f"\nARG SNAPSHOT={day}T000000Z\n" in DOCKERFILE
    assert f" SOURCE_DATE_EPOCH={midnight.timestamp():.0f} " in DOCKERFILE
    assert f"\nARG CREATED={midnight.isoformat().replace('+00:00', 'Z')}\n" in DOCKERFILE


def test_the_image_has_no_files_that_git_ignores():
    """.dockerignore has all lines of .gitignore, in the syntax of Docker."""
    ours = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / ".gitignore").read_text().splitlines():
        included = "!" * line.startswith("!")  # what is not to be ignored after all
        line = line.removeprefix("!")
        anchored = line.strip("/") if line.startswith("/") else f"**/{line.strip('/')}"
        assert included + anchored in ours


@pytest.mark.parametrize(
    ("head", "packed"),
    [("ref: refs/heads/x\n", True), ("ref: refs/heads/x\n", False), ("a" * 40 + "\n", False)],
    ids=["packed", "loose", "detached"],
)
def test_commit_is_read_from_git(tmp_path, head, packed):
    """Runs the step of the Dockerfile on each form that .git may have."""
    step = re.search(r"^ARG COMMIT=unknown\nRUN (.*?)\n\n", DOCKERFILE, re.M | re.S).group(1)
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
