"""Run rows of the published tables with several seeds each, in parallel on this machine or as jobs
of a Slurm cluster, and then write the report. Finished runs are skipped; unfinished runs resume."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import original_stack
from original_stack import machine
from original_stack.command_line import (
    Parser,
    Stopped,
    folder,
    integer_between,
    noted_signals,
    run,
)
from original_stack.errors import Lock, UserError, open_regular, writing

from reproduction import datasets
from reproduction.sweep.plan import plan, show

SNAKEFILE = original_stack.ROOT / "reproduction" / "sweep" / "Snakefile"
SHOWN_EVERY = 60  # seconds between two lines about the same run
SAVING = 120  # seconds before a job's time limit at which Slurm tells the run to save


def sweep(options):
    """The command.

    Raises
    ------
    UserError
        If an option, the data or the results folder is wrong; no run is started then. If a run
        failed, after all other runs have ended.
    Stopped
        After SIGTERM or SIGINT, when every run has saved its last whole epoch.
    """
    if not options.slurm and (options.partition or options.time):
        raise UserError("--partition and --time are for Slurm; add --slurm or leave them out")
    if options.image and not os.path.isfile(options.image):
        raise UserError(f"--image: there is no file {options.image}; name an image of Apptainer")
    jobs = plan(options)
    if options.dry_run:
        show(jobs)
        return
    if not jobs:
        print(f"every run of this sweep is finished in {options.results}")
        return
    results = Path(options.results).resolve()
    if options.slurm and not shutil.which("sbatch"):
        raise UserError("--slurm: there is no sbatch; start the sweep where jobs are submitted")
    folder = results / "sweep"
    marks, logs = folder / "ended", folder / "logs"
    with writing(results, "make it writable or choose another --results"):
        marks.mkdir(parents=True, exist_ok=True)
        logs.mkdir(exist_ok=True)
        try:
            lock = Lock(folder)
        except BlockingIOError:
            raise UserError(f"another sweep runs in {results}; wait for it to end") from None
    with lock:
        for dataset in dict.fromkeys(job.folder.parts[-3] for job in jobs):
            # Each run checks the data that --data names.
            if not any(option.startswith("--data") for option in options.options):
                datasets.load(
                    dataset, allow_unofficial="--allow-unofficial-data" in options.options
                )
        if options.slurm:
            check_shared(folder, options)
        for job in jobs:
            (marks / job.name).unlink(missing_ok=True)
        configuration = {
            "root": str(original_stack.ROOT),
            "results": str(results),
            "marks": str(marks),
            "logs": str(logs),
            "threads": options.threads,
            "runs": {job.name: job.arguments for job in jobs},
            "memory": {job.name: job.memory for job in jobs},
            "resources": resources(options),
        }
        engine(options, configuration, folder, {job.name: logs / f"{job.name}.log" for job in jobs})
        outcomes = {job.name: outcome(marks / job.name, logs / f"{job.name}.log") for job in jobs}
    failed = {name: said for name, said in outcomes.items() if said != "finished"}
    for name, said in failed.items():
        print(f"{name}: {said}", file=sys.stderr)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} runs failed (see above); the others are finished"
        )
    finished = "1 run is" if len(jobs) == 1 else f"{len(jobs)} runs are"
    print(f"{finished} finished; {results / 'README.md'} compares them")


def resources(options):
    """What Snakemake asks Slurm for in each job, beside memory."""
    asked = {}
    if options.slurm:
        asked["slurm_extra"] = f"--open-mode=append --signal=TERM@{SAVING}"
        if options.partition:
            asked["slurm_partition"] = options.partition
        if options.time:
            asked["runtime"] = options.time
    return asked


def check_shared(folder, options):
    """Raise a UserError unless a node of the cluster sees the folder. If no node is free within a
    minute, each job checks this itself."""
    probe = ["srun", "--quiet", "--ntasks=1", "--time=1", "--immediate=60"]
    probe += [f"--partition={options.partition}"] if options.partition else []
    done = subprocess.run(
        [*probe, "sh", "-c", 'test -d "$1" || exit 7', "sh", folder], capture_output=True, text=True
    )
    if done.returncode == 7:
        raise UserError(
            f"{folder} is not on the nodes of the cluster; choose --results on a disk they share"
        )
    if done.returncode and "Unable to allocate resources" not in done.stderr:
        said = done.stderr.strip().splitlines() or [f"srun ended with {done.returncode}"]
        raise UserError(f"Slurm starts no job: {said[-1]}; see its options --partition and --time")


def status_command():
    """The command of Slurm that gives the states of jobs: sacct needs a database of accounts."""
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(["sacct", "--noheader"], capture_output=True).returncode == 0:
            return "sacct"
    return "squeue"


def engine(options, configuration, folder, logs):
    """Run Snakemake until it ends, and print the output of the runs.

    Raises
    ------
    Stopped
    """
    snakemake = [os.environ["BINARYCONNECT_SNAKEMAKE"], "--snakefile", SNAKEFILE]
    snakemake += ["--directory", folder, "--nolock", "--rerun-incomplete", "--keep-going"]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")
    }
    environment["BINARYCONNECT_RESULTS"] = configuration["results"]
    if options.image:
        environment["IMAGE"] = str(Path(options.image).resolve())
    if options.slurm:
        snakemake += ["--executor", "slurm", "--jobs", "1000", "--slurm-requeue"]
        snakemake += ["--latency-wait", "60", "--slurm-status-command", status_command()]
        snakemake += ["--slurm-init-seconds-before-status-checks", "10"]
    else:
        snakemake += ["--cores", str(options.cores)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f, open(folder / "log", "a") as log:
        json.dump(configuration, f)
        f.flush()
        with noted_signals() as received:
            process = subprocess.Popen(
                [*snakemake, "--configfile", f.name],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            _follow(process, logs, received)
        if received:
            raise Stopped("the runs are saved; the same command resumes them", received[-1])


def _follow(process, logs, received):
    """Until the process ends, print the last line of each log if it is new, but not too often. Pass
    each signal received on to the process and its children, which end when their runs are saved."""
    shown, due = {}, dict.fromkeys(logs, 0.0)
    passed_on = 0
    ended = False
    while not ended:
        if len(received) > passed_on:
            passed_on += 1
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        ended = process.returncode is not None
        for name, log in logs.items():
            if time.monotonic() >= due[name] or ended:
                line = last_line(log)
                if line and line != shown.get(name):
                    print(f"{name}: {line}", flush=True)
                    shown[name], due[name] = line, time.monotonic() + SHOWN_EVERY


def last_line(log):
    """The last whole line of a log, or None."""
    try:
        with open_regular(log) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 4096))
            lines = f.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return lines[-1].strip() if lines else None


def outcome(mark, log):
    """How a run ended: "finished", its error, or the log to read."""
    try:
        with open_regular(mark) as f:
            return f.read(4096).decode(errors="replace").strip()
    except FileNotFoundError:
        return f"it was killed, {last_line(log) or 'before it began'}; see {log}"


def minutes(text):
    """Argument type for argparse: a time limit in Slurm's format, as minutes."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+)(?::(\d\d))?", text)
    days, hours, whole, _ = (int(n or 0) for n in match.groups()) if match else (0, 0, 0, 0)
    if match and match[1] and not match[2]:  # D-H
        hours, whole = whole, 0
    total = (days * 24 + hours) * 60 + whole
    if not 0 < total < 10**6:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time limit of Slurm, such as 60, 2:00:00 or 1-12"
        )
    return total


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(
        prog="sweep", description=__doc__, epilog="Options after -- go to every run: -- --epochs 40"
    )
    parser.add_argument(
        "--rows", metavar="ROW,...", help="dataset[:protocol][:method]; default: all published rows"
    )
    parser.add_argument("--seeds", metavar="1-6", help="default: those missing for a verdict")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--cores", metavar="N", type=integer_between(1, 4096), default=machine.threads()
    )
    where.add_argument("--slurm", action="store_true", help="each run is a job of Slurm")
    parser.add_argument("--partition", metavar="P", help="Slurm's partition")
    parser.add_argument(
        "--time", metavar="T", type=minutes, help="time limit of a job, in Slurm's format"
    )
    parser.add_argument(
        "--threads", metavar="N", type=integer_between(1, 256), default=1, help="threads of a run"
    )
    parser.add_argument("--image", metavar="FILE.sif", help="run in this image with apptainer")
    parser.add_argument("--results", metavar="DIR", type=folder, default=original_stack.RESULTS)
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would run, and how long"
    )
    split = argv.index("--") if "--" in argv else len(argv)
    parser.set_defaults(options=argv[split + 1 :])
    return run(parser, sweep, argv[:split])


if __name__ == "__main__":
    sys.exit(main())
