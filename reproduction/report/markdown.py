"""Markdown: tables, text that comes from outside, and generated blocks in hand-written pages."""

from original_stack.errors import UserError, open_regular, reading, write_atomically, writing

MADE = "Made by `./reproduce report` from"  # marks a page that this command made
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN"}
END = "<!-- end -->\n"


def printable(value):
    """The text of `value` on one line, shortened, with "?" for unprintable characters."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:500])


def text(value):
    """`printable`, without characters that mean a cell, code or HTML in Markdown."""
    shown = printable(value)
    for character, written in (("|", "\\|"), ("`", "'"), ("<", "&lt;")):
        shown = shown.replace(character, written)
    return shown


def signed(difference, half):
    """A difference and half its interval: "+0.01 ± 0.09"."""
    return f"{round(difference, 2) + 0.0:+.2f} ± {half:.2f}"  # + 0.0 turns -0.0 into 0.0


def commit_of(record):
    """The commit of a record and whether files differed from it: "0123456789ab with changes"."""
    commit = str(record.get("git_commit") or "unknown")[:12]
    return commit + " with changes" * bool(record.get("git_dirty"))


def table(header, rows):
    """The lines of a table as one text."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def update_block(path, command, content):
    """Replace the block of a page that a command generates.

    Parameters
    ----------
    path : path
        The page. A line "<!-- made by COMMAND -->" begins the block, a line "<!-- end -->" ends it.
    command : str
    content : str

    Raises
    ------
    UserError
        If the page lacks these lines, or cannot be read or written.
    """
    start = f"<!-- made by {command} -->\n"
    try:
        with reading(path, "restore it"), open_regular(path) as f:
            page = f.read().decode()
    except FileNotFoundError:
        page = ""
    before, mark, rest = page.partition(start)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise UserError(
            f"{path} lacks the lines {start.strip()} and {END.strip()}; put them where what "
            f"{command} generates should stand"
        )
    changed = f"{before}{start}{content.rstrip()}\n{END}{after}"
    if changed != page:
        with writing(path, "make it writable or make room"):
            write_atomically(path, changed.encode())
