import math
import os
from pathlib import Path

from original_stack import machine
from original_stack.errors import UserError

import pytest
from checks import python


def test_threads(monkeypatch):
    for chosen, expected in (("3", 3), ("2,1", 2), (" 4 ", 4), ("0008", 8), ("4096", 4096)):
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
        assert machine.threads() == expected


@pytest.mark.parametrize("chosen", ["auto", "0", "-1", "1.5", "4097", "12345678901234567890", "٣"])
def test_wrong_numbers_of_threads(monkeypatch, chosen):
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    with pytest.raises(UserError) as caught:
        machine.threads()
    message = f"OMP_NUM_THREADS is '{chosen}'; expected a number of threads, 1 to 4096"
    assert str(caught.value) == message


def test_a_wrong_number_of_threads_ends_a_program_in_one_line(tmp_path):
    (tmp_path / "program.py").write_text("import original_stack, theano")
    done = python(tmp_path / "program.py", OMP_NUM_THREADS="auto")
    message = "program: OMP_NUM_THREADS is 'auto'; expected a number of threads, 1 to 4096\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_theano_with_a_list_of_numbers_of_threads():
    code = "import original_stack, theano; from original_stack import machine; "
    done = python("-c", code + "print(machine.threads())", OMP_NUM_THREADS="2,1")
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_an_empty_number_of_threads_means_all_processors():
    code = "from original_stack import machine; print(machine.threads())"
    assert python("-c", code, OMP_NUM_THREADS="").stdout == f"{machine.processors()}\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 3),
        # A container with control groups of version 1 that sees the groups of the host.
        (
            "2:cpu,cpuacct:/docker/x\n1:cpuset:/\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/../x\n", {}, math.inf),
    ],
)
def test_quota(tmp_path, groups, files, expected):
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert machine.quota(tmp_path / "groups", tmp_path / "mounted") == expected


def test_no_control_groups(tmp_path):
    assert machine.quota(tmp_path / "missing", tmp_path) == math.inf


def test_the_smaller_of_affinity_and_quota_counts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine, "quota", lambda: 3)
    assert machine.processors() == 3
    monkeypatch.setattr(machine, "quota", lambda: math.inf)
    assert machine.processors() == 8


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "kernels"),
    [
        ("AuthenticAMD", "25", "avx2 avx512f avx512bw avx512dq avx512vl", "ZEN"),
        ("AuthenticAMD", "26", "avx2 avx512f avx512bw avx512dq avx512vl", "SKYLAKEX"),
        ("AuthenticAMD", "25", "avx2 fma", None),
        ("GenuineIntel", "6", "avx2 avx512f avx512bw avx512dq avx512vl", None),
    ],
)
def test_blas_kernels(vendor, family, flags, kernels):
    processor = {"vendor_id": vendor, "cpu family": family, "flags": flags}
    assert machine.blas_kernels(processor) == kernels


def test_blas_kernels_of_a_processor_without_a_vendor():
    processor = {"CPU implementer": "0x41", "Features": "asimd"}
    assert machine.blas_kernels(processor) is None
    assert machine.blas_kernels({}) is None


def test_processor(monkeypatch):
    text = "processor\t: 0\nmodel name\t: A: 1\nflags\t\t: fpu vme\n\nprocessor\t: 1\n\n"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert machine.processor() == {"processor": "0", "model name": "A: 1", "flags": "fpu vme"}
    assert machine.has("fpu")
    assert machine.has("fpu", "vme")
    assert not machine.has("fpu", "avx2")
