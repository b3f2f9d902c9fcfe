"""Compare all runs with the published figures: writes README.md, claims.md, networks.md,
article.md, scale.md, results.csv and figures/ into the folder of the results."""

import os
import sys
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, folder, run
from original_stack.errors import Lock, UserError, open_regular, write_atomically, writing

from reproduction.experiments import ROWS
from reproduction.report import figures, findings
from reproduction.report.article import article
from reproduction.report.claims import claims_page
from reproduction.report.markdown import MADE, printable, update_block
from reproduction.report.networks import networks_page
from reproduction.report.page import COLUMNS, mnist_table, page, results_csv, tuning_page
from reproduction.report.scale import memory_and_disk, scale_page


def report(options):
    """The command.

    Whatever stops it, each file is either old or new, never half written.

    Raises
    ------
    UserError
        If there is no such folder, if it cannot be written, or if it has a file of the same name
        that this command did not make.
    """
    results = Path(options.results)
    if not os.path.isdir(results):
        raise UserError(f"{results} is not a folder; name one that holds runs with --results")
    evidence = findings.read(results, ROWS)
    titles, drawn = figures.draw(evidence.runs, evidence.compared)
    pictures = {title: f"figures/{name}.svg" for name, title in titles.items()}
    target = results / "figures"
    texts = {
        "results.csv": results_csv(evidence.runs + evidence.tuned),
        "claims.md": claims_page(evidence),
        "networks.md": networks_page(evidence.runs, evidence.networks),
        "article.md": article(evidence, pictures),
        "scale.md": scale_page(evidence),
        "README.md": page(evidence, pictures),
    }
    if evidence.tuned:
        texts["tuning/README.md"] = tuning_page(evidence.tuned)
    files = {target / name: content for name, content in drawn.items()}
    files |= {results / name: content.encode() for name, content in texts.items()}
    before = _start(results / "README.md")
    for path in files:
        if os.path.lexists(path) and not _ours(path, before):
            raise UserError(
                f"{path} was not made by this command; move it away or choose another --results"
            )
    with writing(results, "make it writable or make room"):
        target.mkdir(exist_ok=True)
        with Lock(target, waiting=f"another report writes in {results}; waiting for it"):
            for path, content in files.items():
                for part in path.parent.glob(f".{path.name}.*.part"):  # left by a killed report
                    part.unlink()
                write_atomically(path, content)
            for path in sorted({*target.glob("*.svg"), *target.glob("*.png")} - files.keys()):
                if _ours(path, before):
                    path.unlink()
    if results.resolve() == (original_stack.ROOT / "results").resolve():
        comparison = next(iter(pictures.items()))
        block = mnist_table(evidence.runs, (comparison[0], f"results/{comparison[1]}"))
        readme, command = original_stack.ROOT / "README.md", "./reproduce report"
        update_block(readme, command, block)
        update_block(readme, f"{command}: memory and disk", memory_and_disk(evidence.scale))
    runs, notes = _number(evidence.runs, "run"), _number(evidence.notes, "note")
    print(f"{printable(results / 'README.md')}: {runs}, {notes}")


def _number(things, name):
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _start(path):
    """The first bytes of a file, or b"" if it cannot be read."""
    try:
        with open_regular(path) as f:
            return f.read(2**20)
    except (FileNotFoundError, UserError):
        return b""


def _ours(path, page):
    """Whether this command made the file at `path`; `page` is the folder's previous README.md.

    Pages and pictures have a mark, and results.csv has its columns. Pictures of earlier versions
    have no mark, but the page shows them.
    """
    start = _start(path)
    return any(mark.encode() in start for mark in (MADE, figures.MADE, ",".join(COLUMNS))) or (
        MADE.encode() in page and f"({path.parent.name}/{path.stem}.svg)".encode() in page
    )


def main(argv=None):
    parser = Parser(prog="report", description=__doc__)
    parser.add_argument("--results", type=folder, metavar="DIR", default=original_stack.RESULTS)
    return run(parser, report, argv)


if __name__ == "__main__":
    sys.exit(main())
