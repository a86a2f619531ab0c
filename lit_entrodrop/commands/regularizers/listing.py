"""List regularizers from source files and metadata, importing neither PyTorch nor plug-ins."""

from itertools import groupby

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lit_entrodrop import __version__
from lit_entrodrop.commands.regularizers.docstrings import read_docstring
from regularizers.sources import announcements, docstring_of, methods, package_of

# By hook: the part of a training step that it changes.
HOOKS = {
    "on_input_ids": "input ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "token weight",
    "on_token_loss": "token loss",
    "on_loss": "mean loss",
    "on_parameter": "weights",
}


def show_listing(console: Console) -> None:
    """Print a table for each package: name, summary and source of each regularizer."""
    own = f"lit-entrodrop {__version__}"
    rows = [
        (own, method.name, method.docstring, f"acts on {acts_on(method.hooks)}; ")
        for method in methods().values()
    ]
    found = announcements()
    rows += sorted(
        (package_of(entry), entry.name, docstring_of(entry), "")
        for entry, problem in found
        if problem is None
    )
    for package, of_package in groupby(rows, lambda row: row[0]):
        table = Table(title=package, title_justify="left", show_header=False, expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for _, name, docstring, parts in of_package:
            read = read_docstring(docstring)
            source = Text(f"{parts}{read.source}".replace("``", ""), style="dim")
            table.add_row(Text(name, style="bold"), Group(Text(read.summary), source))
        console.print(table)
    for _, problem in found:
        if problem:
            console.print(Text(f"not usable: {problem}", style="yellow"))
    console.print("--explain NAME shows the formula, settings, needs and cost of one.")


def acts_on(hooks: frozenset[str]) -> str:
    """Return the parts of a step that some hooks change.

    >>> acts_on(frozenset({"on_loss", "on_embeddings"}))
    'embeddings, mean loss'
    """
    return ", ".join(part for hook, part in HOOKS.items() if hook in hooks)
