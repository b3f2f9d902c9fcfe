import os
import signal
import stat
import subprocess
import sys
import time

from original_stack import ROOT

import pytest

from reproduction.commands import sweep


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def end(capsys, *argv):
    status = sweep.main(list(argv))
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A stand-in for Snakemake that marks runs as ended, as a shell script says."""

    def make(text):
        path = program(tmp_path / "snakemake", text)
        monkeypatch.setenv("BINARYCONNECT_SNAKEMAKE", str(path))

    return make


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("2:30:00", 150), ("1-0", 1440), ("1-12:30:00", 2190), ("3-00:30:00", 4350)],
)
def test_time_limits(text, minutes):
    assert sweep.minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "x", "1:2:3:4", "-5"])
def test_no_time_limit(capsys, text):
    with pytest.raises(SystemExit) as raised:
        sweep.main([f"--time={text}"])
    assert raised.value.code == 2
    message = f"argument --time: {text!r} is not a time limit of Slurm, such as 60, 2:00:00 or 1-12"
    assert capsys.readouterr().err == f"sweep: {message}; --help lists the options\n"


def test_wrong_options_start_nothing(capsys, tmp_path):
    results = tmp_path / "results"
    for given, message in [
        (["--rows", "x"], "--rows: no row is 'x'; expected one of"),
        (["--seeds", "x"], "--seeds: 'x' is not a seed or a range of them such as 1-6\n"),
        (["--time", "60"], "--partition and --time are for Slurm; add --slurm or leave them out\n"),
        (["--image", "/x.sif"], "--image: there is no file /x.sif; name an image of Apptainer\n"),
    ]:
        status, out, err = end(capsys, *given, "--results", str(results))
        assert (status, out) == (2, "")
        assert err.startswith(f"sweep: {message}")
    assert not results.exists()


def test_no_slurm(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    given = ["--slurm", "--rows", "digits:paper:none", "--seeds", "1", "--results", f"{tmp_path}/r"]
    message = "--slurm: there is no sbatch; start the sweep where jobs are submitted"
    assert end(capsys, *given) == (2, "", f"sweep: {message}\n")
    assert not (tmp_path / "r").exists()


def test_results_that_no_node_sees(capsys, tmp_path, monkeypatch):
    for name, text in (("sbatch", "exit 1"), ("srun", "exit 7")):
        program(tmp_path / name, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    given = ["--slurm", "--rows", "digits:paper:none", "--seeds", "1", "--results", f"{tmp_path}/r"]
    message = "is not on the nodes of the cluster; choose --results on a disk they share"
    assert end(capsys, *given) == (2, "", f"sweep: {tmp_path}/r/sweep {message}\n")


def test_a_failed_run_is_reported_when_the_others_have_finished(capsys, tmp_path, engine):
    ended = tmp_path / "r" / "sweep" / "ended"
    engine(
        f"echo finished >{ended}/digits-paper-none-seed-1; "
        f"echo 'mnist: wrong; do right' >{ended}/digits-paper-none-seed-2; "
        f"echo 'epoch 1/2' >{ended}/../logs/digits-paper-none-seed-3.log; exit 1"
    )
    rows = ["--rows", "digits:paper:none", "--results", f"{tmp_path}/r"]
    status, out, err = end(capsys, *rows, "--seeds", "1-3")
    assert (status, out) == (2, "digits-paper-none-seed-3: epoch 1/2\n")
    log = f"{tmp_path}/r/sweep/logs/digits-paper-none-seed-3.log"
    assert err == (
        "digits-paper-none-seed-2: mnist: wrong; do right\n"
        f"digits-paper-none-seed-3: it was killed, epoch 1/2; see {log}\n"
        "sweep: 2 of 3 runs failed (see above); the others are finished\n"
    )
    engine(f"echo finished >{ended}/digits-paper-none-seed-2")
    status, out, err = end(capsys, *rows, "--seeds", "2")
    page = f"{tmp_path}/r/README.md"
    assert (status, out) == (0, f"1 run is finished; {page} compares them\n")


def test_one_sweep_at_a_time(capsys, tmp_path, engine):
    engine("exit 0")
    (tmp_path / "r" / "sweep").mkdir(parents=True)
    rows = ["--rows", "digits:paper:none", "--seeds", "1", "--results", f"{tmp_path}/r"]
    with sweep.Lock(tmp_path / "r" / "sweep"):
        message = f"another sweep runs in {tmp_path}/r; wait for it to end"
        assert end(capsys, *rows) == (2, "", f"sweep: {message}\n")


def test_sigterm_while_snakemake_starts(tmp_path, engine, capsys, monkeypatch):
    engine("trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done")

    class Signalled(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            while (tmp_path / "r" / "sweep" / "log").read_text() != "ready\n":
                time.sleep(0.02)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sweep.subprocess, "Popen", Signalled)
    wanted = ["--rows", "digits:paper:none", "--seeds", "1", "--results", str(tmp_path / "r")]
    assert end(capsys, *wanted) == (
        143,
        "",
        "sweep: the runs are saved; the same command resumes them\n",
    )


def test_sigterm_reaches_the_runs(tmp_path):
    snakemake = program(
        tmp_path / "snakemake",
        "trap 'echo told >told; exit 143' TERM; echo ready; while :; do sleep 0.1; done",
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "reproduction.commands.sweep", "--rows", "digits:paper:none"]
        + ["--seeds", "1", "--results", tmp_path / "r"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "BINARYCONNECT_SNAKEMAKE": str(snakemake)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "r" / "sweep" / "log"
    while not (log.exists() and log.read_text() == "ready\n"):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143
    assert err == "sweep: the runs are saved; the same command resumes them\n"
    assert (tmp_path / "told").read_text() == "told\n"
